"""Scorers by entry point (`modelyard.scorers`): pure functions of an example and an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from modelyard.core.plugins import load_plugin, plugin_names
from modelyard.results.examples import Example, Score

GROUP = "modelyard.scorers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A named, versioned way to score; `score` never raises, whatever the answer is."""

    name: str
    version: str
    judge: Callable[[Example, str], Score]
    # Why an example cannot be scored so and what to do about it, or None.
    problem: Callable[[Example], tuple[str, str] | None] = lambda _example: None
    # Whether the model is asked for its likeliest letter instead of text.
    by_likelihood: bool = False
    # Whether another model's verdict is needed.
    by_verdict: bool = False
    # Whether its scores are 0 or 1 only, so that exact tests of them may be declared beforehand.
    zero_one: bool = False

    def score(self, example: Example, answer: str | None) -> Score:
        """The score of an answer; none, or an empty one, is wrong."""
        if answer is None or not answer.strip():
            return Score(value=0.0, why="no answer")
        return self.judge(example, answer)


def scorer_names() -> list[str]:
    """The names of all installed scorers."""
    return plugin_names(GROUP)


@cache  # looking through what is installed takes milliseconds, and every example asks
def load_scorer(name: str) -> Scorer:
    """The scorer of that name. Raises `PluginError`."""
    scorer: Scorer = load_plugin(GROUP, name)
    return scorer
