"""Scorers by entry point (`modelyard.scorers`): pure functions of an example and an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.core.plugins import load_plugin, plugin_names
from modelyard.results.examples import Example, Score

GROUP = "modelyard.scorers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A named, versioned way to score; `score` never raises, whatever the answer is."""

    name: str
    version: str
    judge: Callable[[Example, str], Score]

    def score(self, example: Example, answer: str | None) -> Score:
        """The score of an answer; none, or an empty one, is wrong."""
        if answer is None or not answer.strip():
            return Score(value=0.0, why="no answer")
        return self.judge(example, answer)


def scorer_names() -> list[str]:
    """The names of all installed scorers."""
    return plugin_names(GROUP)


def load_scorer(name: str) -> Scorer:
    """The scorer of that name. Raises `PluginError`."""
    scorer: Scorer = load_plugin(GROUP, name)
    return scorer
