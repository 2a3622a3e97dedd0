"""What both models made of the items of a pack, in the order in which the items were asked.

It knows no text, no model and no file: scores only. A missing, failed or truncated answer has the score
0 before it comes here (intention to treat), and is counted as missing beside.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import EvidenceError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: The score from which on an item counts as passed, where scores are not 0 and 1.
PASSES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item of a pack, as far as the comparison needs it."""

    id: str
    weight: float = 1.0
    # Items that rise and fall together share a cluster. Empty: the item stands alone.
    cluster: str = ""
    critical: bool = False

    @property
    def group(self) -> tuple[bool, str]:
        """The cluster as a key; an item that stands alone never shares it, whatever its id."""
        return (True, self.cluster) if self.cluster else (False, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What both models made of one item: a score in [0, 1] for every sample, in order of the samples."""

    item: Item
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    # How many of those scores are 0 because there was no whole answer.
    missing_baseline: int = 0
    missing_candidate: int = 0

    @property
    def baseline_mean(self) -> float:
        """Of the baseline, over the samples."""
        return math.fsum(self.baseline) / len(self.baseline)

    @property
    def candidate_mean(self) -> float:
        """Of the candidate, over the samples."""
        return math.fsum(self.candidate) / len(self.candidate)

    @property
    def difference(self) -> float:
        """Candidate minus baseline."""
        return self.candidate_mean - self.baseline_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The whole pack in asking order, and what is known of its first items.

    `answered` follows the order of `pack`. In a sequential comparison it may end early; behind the item
    that decided, only critical items may follow.
    """

    pack: tuple[Item, ...]
    answered: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        _refuse_faults(self)

    @property
    def complete(self) -> bool:
        """Whether every item of the pack was asked."""
        return len(self.answered) == len(self.pack)

    @property
    def samples(self) -> int:
        """How many answers each model gave to each item; 0 where nothing was asked."""
        return len(self.answered[0].baseline) if self.answered else 0

    def first(self, count: int) -> Outcomes:
        """The same pack with the first `count` answered items only."""
        return Outcomes(pack=self.pack, answered=self.answered[:count])

    def table(self) -> Table:
        """The answered items as arrays."""
        numbers: dict[tuple[bool, str], int] = {}
        codes = [numbers.setdefault(outcome.item.group, len(numbers)) for outcome in self.answered]
        return Table(
            baseline_n=np.array([outcome.baseline_mean for outcome in self.answered], np.float64),
            candidate_n=np.array([outcome.candidate_mean for outcome in self.answered], np.float64),
            weight_n=np.array([o.item.weight for o in self.answered], np.float64),
            cluster_n=np.array(codes, np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Outcomes as arrays of N items: means over samples, weights, and clusters numbered 0, 1, ..."""

    baseline_n: Floats
    candidate_n: Floats
    weight_n: Floats
    cluster_n: Integers

    @property
    def difference_n(self) -> Floats:
        """Candidate minus baseline, in [-1, 1]."""
        return self.candidate_n - self.baseline_n

    def cluster_sums(self) -> tuple[Floats, Floats]:
        """Of each of the G clusters: the sum of weight times difference, and the sum of weights."""
        return (
            np.bincount(self.cluster_n, self.weight_n * self.difference_n).astype(np.float64),
            np.bincount(self.cluster_n, self.weight_n).astype(np.float64),
        )

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """n11, n10, n01, n00; the first digit is the baseline, the second the candidate."""
        base, cand = self.baseline_n >= PASSES, self.candidate_n >= PASSES
        pairs = (base & cand, base & ~cand, ~base & cand, ~base & ~cand)
        n11, n10, n01, n00 = (int(each.sum()) for each in pairs)
        return n11, n10, n01, n00


def asking_order(items: Sequence[Item], seed: int) -> tuple[Item, ...]:
    """The items in a seeded random order in which clusters stay together.

    With `rng = numpy.random.default_rng(seed)`: the clusters, listed by their first item, are put in the
    order `rng.permutation(G)`; then, cluster after cluster in that new order, the items of one, listed as
    they came, in the order `rng.permutation(size)`. Clusters stay together because a test that may stop
    after any item must look at whole clusters: items of one cluster are no independent evidence.
    """
    rng = np.random.default_rng(seed)
    groups: dict[tuple[bool, str], list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    clusters = list(groups.values())
    order = [clusters[number] for number in rng.permutation(len(clusters))]
    return tuple(cluster[number] for cluster in order for number in rng.permutation(len(cluster)))


def _refuse_faults(outcomes: Outcomes) -> None:
    doubled = [name for name, count in Counter(item.id for item in outcomes.pack).items() if count > 1]
    if doubled:
        raise EvidenceError(f"pack: the item {doubled[0]!r} stands twice; give every item an id of its own")
    for item in outcomes.pack:
        if not (math.isfinite(item.weight) and item.weight > 0):
            raise EvidenceError(f"pack: item {item.id!r} has the weight {item.weight}; it must be above 0")
    rest = iter(outcomes.pack)
    for outcome in outcomes.answered:
        if outcome.item not in rest:  # an iterator: what was passed does not come again
            raise EvidenceError(
                f"outcomes: item {outcome.item.id!r} is not in the pack, or not in its order;"
                " give outcomes in the order in which the pack was asked"
            )
        _refuse_scores(outcome, outcomes.samples)


def _refuse_scores(outcome: Outcome, samples: int) -> None:
    name = outcome.item.id
    if not samples or not len(outcome.baseline) == len(outcome.candidate) == samples:
        raise EvidenceError(
            f"outcomes: item {name!r} has {len(outcome.baseline)} scores of the baseline and"
            f" {len(outcome.candidate)} of the candidate, where {samples} of both are required;"
            " score a missing answer 0"
        )
    for score in (*outcome.baseline, *outcome.candidate):
        if not 0 <= score <= 1:
            raise EvidenceError(f"outcomes: item {name!r} has the score {score}; a score lies in [0, 1]")
