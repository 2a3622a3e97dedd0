"""Rungs and brackets: the tables of the Hyperband paper's algorithm, and ranges that are no powers."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.plugins import load_plugin
from modelyard.tuning.searcher import Rungs
from modelyard.tuning.searchers.brackets import Slot, bracket, levels, most_halvings, slot

# Trials and budgets of each bracket, from the largest s to 0.
TABLES = {
    27: [
        [(27, 1), (9, 3), (3, 9), (1, 27)],
        [(12, 3), (4, 9), (1, 27)],
        [(6, 9), (2, 27)],
        [(4, 27)],
    ],
    81: [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ],
    243: [
        [(243, 1), (81, 3), (27, 9), (9, 27), (3, 81), (1, 243)],
        [(98, 3), (32, 9), (10, 27), (3, 81), (1, 243)],
        [(41, 9), (13, 27), (4, 81), (1, 243)],
        [(18, 27), (6, 81), (2, 243)],
        [(9, 81), (3, 243)],
        [(6, 243)],
    ],
}


@pytest.mark.parametrize("high", TABLES)
def test_the_brackets_are_those_of_the_paper(high):
    rungs = Rungs(low=1, high=high)
    top = most_halvings(rungs)
    assert [[(r.trials, r.budget) for r in bracket(rungs, s)] for s in range(top, -1, -1)] == TABLES[high]


def test_the_steps_of_all_brackets_together():
    """8,457 for 243: a logarithm in floats loses the largest bracket and comes to fewer."""
    assert math.log(243) / math.log(3) < 5
    rungs = Rungs(low=1, high=243)
    assert sum(r.trials * r.budget for s in range(6) for r in bracket(rungs, s)) == 8457


@pytest.mark.parametrize(
    ("rungs", "expected"),
    [
        (Rungs(low=1, high=27), (1, 3, 9, 27)),
        (Rungs(low=1, high=100), (1, 3, 9, 27, 100)),
        (Rungs(low=5, high=40, eta=2), (5, 10, 20, 40)),
        (Rungs(low=4, high=10, eta=3), (10,)),
        (Rungs(low=7, high=7), (7,)),
    ],
)
def test_the_levels_of_asha(rungs, expected):
    assert levels(rungs) == expected


def test_slots_fill_the_brackets_from_the_largest_and_begin_again():
    rungs = Rungs(low=1, high=9)
    places = [slot(rungs, index) for index in range(2 * (9 + 5 + 3))]
    assert [p.bracket for p in places[:17]] == [2] * 9 + [1] * 5 + [0] * 3
    assert places[17] == Slot(cycle=1, bracket=2)
    assert Counter(p.cycle for p in places) == {0: 17, 1: 17}


@given(low=st.integers(1, 20), factor=st.integers(1, 400), eta=st.integers(2, 5))
def test_budgets_rise_within_the_range_and_end_at_its_end(low, factor, eta):
    rungs = Rungs(low=low, high=low * factor, eta=eta)
    assert levels(rungs)[-1] == rungs.high and list(levels(rungs)) == sorted(set(levels(rungs)))
    for s in range(most_halvings(rungs) + 1):
        steps = bracket(rungs, s)
        assert len(steps) == s + 1 and steps[-1].budget == rungs.high and steps[0].budget >= low
        assert [r.budget for r in steps] == sorted({r.budget for r in steps})
        assert all(r.trials >= 1 for r in steps)


@pytest.mark.parametrize("name", ["hyperband", "hyperband_es", "bohb", "dehb"])
def test_a_search_that_goes_on_may_have_more_rounds(name):
    algorithm = load_plugin("modelyard.tuners", name)
    assert algorithm.decisive({"cycles": 2, "least": 5}) == {"least": 5}
