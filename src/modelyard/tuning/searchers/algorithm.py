"""What an entry point of the group `modelyard.tuners` names: how a searcher is made, and what it can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.core.errors import TuneError
from modelyard.core.faults import Section
from modelyard.tuning.searcher import Searcher, SearcherSettings

#: Options of an algorithm by name.
Options = tuple[tuple[str, object], ...]


def no_options(_section: Section) -> Options:
    """Of an algorithm that has none."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """A factory of searchers: call it with the settings."""

    name: str
    make: Callable[[SearcherSettings], Searcher]
    # Reads the options of this algorithm, key by key; the caller closes the section.
    options: Callable[[Section], Options] = no_options
    # Whether there may be more than one objective.
    several: bool = False
    # Whether it stops trials at rungs, or promotes them.
    rungs: bool = False
    # Options that do not make another study: one that is there goes on when they are changed.
    changeable: frozenset[str] = frozenset()

    def __call__(self, settings: SearcherSettings) -> Searcher:
        """A searcher with these settings.

        Raises:
            TuneError: It cannot work with as many objectives, or without rungs; something it needs is not
                installed.
        """
        if len(settings.directions) > 1 and not self.several:
            raise TuneError(
                f"{self.name}: there are {len(settings.directions)} objectives and it works with one; "
                "use bayesian, nsga2 or tpe, or name one objective"
            )
        if self.rungs and settings.rungs is None:
            raise TuneError(
                f"{self.name}: it compares trials at their steps and no rungs are given; "
                "say how many steps a trial has, or use tpe"
            )
        return self.make(settings)
