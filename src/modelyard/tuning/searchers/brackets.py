"""Rungs and brackets: which budgets there are, and how many trials begin at each. Integers throughout.

Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 18 (2018),
algorithm 1; Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, for ASHA.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.tuning.searcher import Rungs

#: Options that say how long a search is, and not which: one that goes on may change them.
LENGTH = frozenset({"cycles"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How many trials of a bracket get this budget."""

    trials: int
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where a new configuration goes: the bracket, in which round through all brackets."""

    cycle: int
    bracket: int


def most_halvings(rungs: Rungs) -> int:
    """How often the highest budget can be divided by eta and is no lower than the lowest: s_max."""
    count = 0
    while rungs.low * rungs.eta ** (count + 1) <= rungs.high:
        count += 1
    return count


def levels(rungs: Rungs) -> tuple[int, ...]:
    """The budgets of ASHA: each eta times the last, and the highest at the end in place of the last.

    Of 1 to 100 by threes: 1, 3, 9, 27, 100; a rung at 81 would save next to nothing.
    """
    halvings = most_halvings(rungs)
    return (*(rungs.low * rungs.eta**k for k in range(halvings)), rungs.high)


def bracket(rungs: Rungs, s: int) -> tuple[Rung, ...]:
    """Bracket s: n = ceil((s_max + 1) eta^s / (s + 1)) trials with the budget R / eta^s, and so on."""
    begun = -(-(most_halvings(rungs) + 1) * rungs.eta**s // (s + 1))
    return tuple(
        Rung(trials=begun // rungs.eta**i, budget=rungs.high // rungs.eta ** (s - i)) for i in range(s + 1)
    )


def slot(rungs: Rungs, index: int) -> Slot:
    """Where the configuration with this index goes: from the largest bracket to 0, and again."""
    sizes = [(s, bracket(rungs, s)[0].trials) for s in range(most_halvings(rungs), -1, -1)]
    cycle, left = divmod(index, sum(count for _, count in sizes))
    for s, count in sizes:
        if left < count:
            return Slot(cycle=cycle, bracket=s)
        left -= count
    return Slot(cycle=cycle, bracket=0)
