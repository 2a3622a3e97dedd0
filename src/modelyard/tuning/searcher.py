"""The seam of search algorithms: what proposes trials, and judges running ones.

A searcher keeps nothing between calls: what it decides follows from the trials so far, the number of
the trial and its seed. So every algorithm goes on after a crash as if nothing had happened, and two
processes can drive one study. Every implementation passes
`modelyard.testing.searcher_contract.SearcherContract`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modelyard.tuning.dimensions import Dimension, Point
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.trial import Direction, Proposal, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Rungs:
    """The budgets at which trials are compared: from `low` up to `high`, each `eta` times the last."""

    low: int = 1
    high: int = 27
    eta: int = 3
    # Whether a trial ends at its rung and goes on from its checkpoint as another job when it is promoted;
    # otherwise it runs on and is stopped at a rung where it is not good enough.
    promote: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a searcher that asks somebody else finds around it; one that only computes has no use for it."""

    # The run's, where a searcher keeps what it was told; it need not be there yet.
    folder: Path
    # Holds the keys that options name.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    # What the dimensions stand for.
    space: Space
    # One for each direction.
    metrics: tuple[str, ...]
    # So many trials at the beginning are the study's own: the default, and those it was told to start with.
    given: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearcherSettings:
    """What a searcher is made with."""

    dimensions: tuple[Dimension, ...]
    # One for each objective.
    directions: tuple[Direction, ...]
    seed: int = 0
    # How many trials run at once.
    parallel: int = 1
    rungs: Rungs | None = None
    # The point of the default configuration.
    default: Point | None = None
    # Options of this algorithm alone, already checked by `options` of its factory.
    options: tuple[tuple[str, object], ...] = ()
    # None: nothing is known but what stands above.
    host: Host | None = None


class Searcher(Protocol):
    """Proposes and judges. To be used in one thread."""

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """What the trial of this number shall try, given all trials before it, running ones among them.

        The same trials, number and seed give the same proposal, in any process. None: nothing can be
        proposed before a running trial ends; with none running, the search is at its end. Coordinates
        lie within their dimensions; relations between parameters are the space's to mend afterwards.
        Failed trials count as failures, never as values. `trials` are ordered by number. Those numbered
        below 0 are of earlier studies: complete, and to learn from only. They are never gone on from, and
        no place at a rung or in a population is theirs.
        """

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Whether the running trial of this number may go on after it reported this step.

        Called once for each step, in order; only `curve` up to this step of the trial itself is looked
        at, so that what it printed meanwhile changes nothing.
        """
