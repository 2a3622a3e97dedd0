"""Outcomes: what is refused, what the arrays hold, and the order of asking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.evidence.made_outcomes import of_counts, of_scores, outcome

from modelyard.core.errors import EvidenceError
from modelyard.evidence.outcomes import Item, Outcome, Outcomes, asking_order

A, B, C = (Item(id=name) for name in "abc")


def test_counts_have_the_baseline_first():
    assert of_counts(n11=4, n10=3, n01=2, n00=1).table().counts == (4, 3, 2, 1)


def test_an_item_passes_from_a_half_on():
    assert of_scores([0.5, 0.49, 0.5], [0.49, 0.5, 0.5]).table().counts == (1, 1, 1, 0)


def test_samples_are_averaged():
    one = outcome(A, (1, 0, 1, 1), (0, 0, 1, 0))
    table = Outcomes(pack=(A,), answered=(one,)).table()
    assert (table.baseline_n[0], table.candidate_n[0], table.difference_n[0]) == (0.75, 0.25, -0.5)


def test_clusters_are_summed_with_their_weights():
    told = of_scores([0, 1, 0], [1, 0.5, 0.5], weights=[1, 2, 3], clusters=["x", "y", "x"])
    difference_g, weight_g = told.table().cluster_sums()
    np.testing.assert_allclose(difference_g, [1 + 1.5, -1])
    np.testing.assert_allclose(weight_g, [4, 2])


def test_a_cluster_with_the_name_of_an_item_takes_nobody_in():
    items = (Item(id="a"), Item(id="b", cluster="a"))
    told = Outcomes(pack=items, answered=tuple(outcome(item, (0,), (1,)) for item in items))
    assert len(told.table().cluster_sums()[0]) == 2


@pytest.mark.parametrize(
    ("pack", "answered", "message"),
    [
        ((A, A), (), "'a' stands twice"),
        ((Item(id="a", weight=0.0),), (), "has the weight 0.0"),
        ((Item(id="a", weight=float("nan")),), (), "has the weight nan"),
        ((A, B), (outcome(C, (1,), (1,)),), "'c' is not in the pack"),
        ((A, B), (outcome(B, (1,), (1,)), outcome(A, (1,), (1,))), "'a' is not in the pack, or not in"),
        ((A, B), (outcome(A, (1,), (1,)), outcome(A, (1,), (1,))), "'a' is not in the pack, or not in"),
        ((A,), (outcome(Item(id="a", critical=True), (1,), (1,)),), "'a' is not in the pack"),
        ((A,), (outcome(A, (1,), (1.5,)),), "the score 1.5"),
        ((A,), (outcome(A, (float("nan"),), (1,)),), "the score nan"),
        ((A,), (outcome(A, (), ()),), "0 scores of the baseline"),
        ((A, B), (outcome(A, (1, 1), (1, 1)), outcome(B, (1,), (1, 1))), "1 scores of the baseline and 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused(pack: tuple[Item, ...], answered: tuple[Outcome, ...], message: str):
    with pytest.raises(EvidenceError, match=message):
        Outcomes(pack=pack, answered=answered)


def test_items_may_be_left_out_but_not_turned_round():
    told = Outcomes(pack=(A, B, C), answered=(outcome(A, (1,), (0,)), outcome(C, (1,), (0,))))
    assert not told.complete
    assert told.first(1).answered == told.answered[:1]


@given(st.lists(st.sampled_from(["", "x", "y", "z"]), min_size=1, max_size=30), st.integers(0, 5))
def test_the_order_of_asking_keeps_items_and_clusters_together(clusters: list[str], seed: int):
    items = [Item(id=str(number), cluster=cluster) for number, cluster in enumerate(clusters)]
    order = asking_order(items, seed)
    assert sorted(order, key=lambda item: int(item.id)) == items
    assert order == asking_order(items, seed)
    groups = [item.group for item in order]
    starts = [group for group, before in zip(groups, [None, *groups], strict=False) if group != before]
    assert len(starts) == len(set(groups))


def test_the_order_of_asking_is_as_documented():
    items = [
        Item(id=name, cluster=cluster)
        for name, cluster in zip("abcde", ["x", "", "x", "y", "y"], strict=True)
    ]
    rng = np.random.default_rng(7)
    groups = [["a", "c"], ["b"], ["d", "e"]]
    expected = []
    for group in [groups[number] for number in rng.permutation(3)]:
        expected += [group[number] for number in rng.permutation(len(group))]
    assert [item.id for item in asking_order(items, 7)] == expected


def test_every_place_of_the_order_is_equally_likely():
    items = [Item(id=name) for name in "abc"]
    first = [asking_order(items, seed)[0].id for seed in range(900)]
    # 300 each are expected; 5 standard deviations of 14 are 71.
    assert all(abs(first.count(name) - 300) < 71 for name in "abc")
