"""Failures that a better mean does not excuse."""

from __future__ import annotations

import pytest
from tests.unit.evidence.made_outcomes import outcome

from modelyard.evidence.losses import critical_passes, is_lost, is_new_critical_failure
from modelyard.evidence.outcomes import Item

CRITICAL, PLAIN = Item(id="a", critical=True), Item(id="b")


@pytest.mark.parametrize(
    ("item", "baseline", "candidate", "new"),
    [
        (CRITICAL, (1,), (0,), True),
        (CRITICAL, (1, 1, 1), (1, 0, 1), True),
        (CRITICAL, (1, 0, 1), (0, 0, 0), False),
        (CRITICAL, (0.5,), (0.49,), True),
        (CRITICAL, (1,), (1,), False),
        (PLAIN, (1,), (0,), False),
    ],
)
def test_a_new_critical_failure(
    item: Item, baseline: tuple[float, ...], candidate: tuple[float, ...], new: bool
):
    assert is_new_critical_failure(outcome(item, baseline, candidate)) is new


@pytest.mark.parametrize(
    ("baseline", "candidate", "lost"),
    [((1,), (0,), True), ((1, 0), (1, 0), False), ((1, 0), (0, 0), True), ((0, 0), (0, 0), False)],
)  # fmt: skip
def test_a_lost_item(baseline: tuple[float, ...], candidate: tuple[float, ...], lost: bool):
    assert is_lost(outcome(PLAIN, baseline, candidate)) is lost


def test_every_sample_of_a_critical_item_counts():
    told = [outcome(CRITICAL, (1,) * 20, (1,) * 20), outcome(PLAIN, (1,), (0,))]
    found = critical_passes(told)
    assert (found.passed, found.n, found.new_failures) == (20, 20, ())
    assert found.lower95 == pytest.approx(0.05 ** (1 / 20))


def test_without_critical_items_nothing_is_known_of_them():
    found = critical_passes([outcome(PLAIN, (1,), (1,))])
    assert (found.passed, found.n, found.lower95, found.new_failures) == (0, 0, 0.0, ())
