"""Verdicts: what passes, fails and stays open, from outcomes to the words of the report."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.evidence.made_outcomes import of_counts, of_scores, outcome

from modelyard.core.errors import EvidenceError
from modelyard.evidence.design import declare
from modelyard.evidence.discordance import exact_p, score_p
from modelyard.evidence.outcomes import Item, Outcomes
from modelyard.evidence.sequential import Advice, Monitor
from modelyard.evidence.verdict import judge

MARGIN: dict[str, Any] = {"alternative": "non_inferiority", "margin": 0.05}
EXACT = declare(sequential=True, method="mcnemar_exact")


def in_order(pack: list[Item], gaps: list[int], *, rest: tuple[Item, ...] = ()) -> Outcomes:
    """Outcomes of the first items: 1 is a win, -1 a loss, 0 both pass."""
    scores = {1: ((0,), (1,)), -1: ((1,), (0,)), 0: ((1,), (1,))}
    answered = tuple(outcome(item, *scores[gap]) for item, gap in zip(pack, gaps, strict=True))
    return Outcomes(pack=(*pack, *rest), answered=answered)


def items(count: int, **fields: Any) -> list[Item]:
    return [Item(id=str(number), **fields) for number in range(count)]


def test_better_is_proven():
    found = judge(of_counts(n11=100, n10=5, n01=20, n00=75), declare())
    assert found.verdict == "pass"
    assert found.method == "mcnemar_exact"
    assert found.p_value == exact_p(20, 5)
    assert found.delta == pytest.approx(0.075)
    assert found.baseline == pytest.approx(0.525) and found.candidate == pytest.approx(0.6)
    assert found.ci[0] > 0
    assert found.e_value is None and found.looks == () and found.stopped_at is None
    assert found.reasons[1].startswith("The candidate is better than the baseline: p = 0.002")


def test_worse_is_proven():
    found = judge(of_counts(n11=100, n10=20, n01=5, n00=75), declare())
    assert found.verdict == "fail"
    assert found.ci[1] < 0
    assert found.n_needed is None
    assert found.reasons[1].startswith(
        "The candidate is worse than the baseline (mcnemar_exact; the interval"
    )


def test_neither_says_how_many_items_it_takes():
    found = judge(of_counts(n11=100, n10=10, n01=15, n00=75), declare())
    assert found.verdict == "inconclusive"
    assert found.n_needed is not None and found.n_needed > 200
    assert f"About {found.n_needed} items" in found.reasons[-1]
    assert found.mde > found.delta
    hopeless = judge(of_counts(n11=100, n10=11, n01=10, n00=75), declare())
    assert hopeless.n_needed is None and "would not prove it" in hopeless.reasons[-1]


def test_the_numbers_of_a_lost_item_are_right():
    found = judge(of_counts(n11=1, n10=2, n01=1), declare())
    assert found.losses == ("1", "2")
    assert (found.counts.n11, found.counts.n10, found.counts.n01, found.counts.n00) == (1, 2, 1, 0)


def test_not_worse_by_more_than_the_margin():
    found = judge(of_counts(n11=300, n10=10, n01=10, n00=80), declare(**MARGIN))
    assert found.verdict == "pass"
    assert found.method == "tango_score"
    assert found.p_value == score_p(10, 10, 400, 0.05)
    assert "at most 5 points worse" in found.reasons[1]


def test_worse_than_the_margin():
    found = judge(of_counts(n11=300, n10=60, n01=10, n00=30), declare(**MARGIN))
    assert found.verdict == "fail"
    assert "more than 5 points worse than the baseline" in found.reasons[1]


@pytest.mark.parametrize(("allowed", "verdict"), [(0, "fail"), (1, "pass")])
def test_a_new_critical_failure_fails_whatever_the_mean(allowed: int, verdict: str):
    pack = [*items(30), Item(id="c", critical=True)]
    found = judge(in_order(pack, [1] * 30 + [-1]), declare(critical_failures_allowed=allowed))
    assert found.verdict == verdict
    assert found.critical.new_failures == ("c",)
    assert ("New critical failures: 1, allowed: 0 (c)." in found.reasons) == (allowed == 0)


@pytest.mark.parametrize(("allowed", "verdict"), [(None, "pass"), (2, "pass"), (1, "fail")])
def test_a_budget_of_losses(allowed: int | None, verdict: str):
    found = judge(in_order(items(40), [1] * 38 + [-1, -1]), declare(losses_allowed=allowed))
    assert found.verdict == verdict
    assert ("Items lost: 2, allowed: 1 (38, 39)." in found.reasons) == (verdict == "fail")


def test_many_losses_are_not_all_named():
    found = judge(in_order(items(40), [-1] * 8 + [1] * 32), declare(losses_allowed=0))
    assert "Items lost: 8, allowed: 0 (0, 1, 2, 3, 4 and 3 more)." in found.reasons


def test_half_a_pack_proves_nothing_by_the_test():
    found = judge(of_scores([0] * 30, [1] * 30, unasked=1), declare())
    assert found.p_value < 1e-8
    assert found.verdict == "inconclusive"
    assert "Only 30 of 31 items were answered" in found.reasons[1]
    assert judge(of_scores([1] * 30, [0] * 30, unasked=1), declare()).verdict == "inconclusive"


def test_an_early_pass_is_of_the_items_up_to_it():
    told = in_order(items(25), [1] * 20 + [-1] * 5, rest=tuple(Item(id=f"r{n}") for n in range(100)))
    found = judge(told, EXACT)
    assert found.verdict == "pass"
    assert found.stopped_at == len(found.looks) == found.counts.n01 == 8
    assert found.e_value is not None and found.e_value >= 100
    assert found.delta == 1
    assert found.losses == ("20", "21", "22", "23", "24")
    assert "Stopped early" in found.reasons[1]


def test_an_early_fail():
    found = judge(in_order(items(20), [-1] * 20, rest=(Item(id="r"),)), EXACT)
    assert found.verdict == "fail" and found.stopped_at == 8


def test_a_proven_claim_is_no_pass_before_critical_items_were_asked():
    critical = Item(id="c", critical=True)
    told = in_order(items(20), [1] * 20, rest=(Item(id="r"), critical))
    found = judge(told, EXACT)
    assert found.verdict == "inconclusive"
    assert found.reasons[-1] == "Critical items that were not asked: 1; every one must be."
    asked = Outcomes(pack=told.pack, answered=(*told.answered, outcome(critical, (1,), (1,))))
    assert judge(asked, EXACT).verdict == "pass"
    failed = Outcomes(pack=told.pack, answered=(*told.answered, outcome(critical, (1,), (0,))))
    assert judge(failed, EXACT).verdict == "fail"


def test_a_proven_claim_is_no_pass_before_losses_were_counted():
    design = declare(sequential=True, method="mcnemar_exact", losses_allowed=3)
    found = judge(in_order(items(20), [1] * 20, rest=(Item(id="r"),)), design)
    assert found.verdict == "inconclusive"
    assert found.reasons[-1].startswith("Items lost are counted over the whole pack")


def test_behind_a_gap_in_the_order_nobody_looks():
    pack = items(30)
    told = Outcomes(pack=tuple(pack), answered=tuple(outcome(item, (0,), (1,)) for item in pack[8:]))
    found = judge(told, EXACT)
    assert (found.verdict, found.looks, found.e_value) == ("inconclusive", (), 1.0)


def test_at_the_end_what_is_left_of_alpha_decides():
    # 10 wins, 2 losses: p = 0.0193 and an e-value far from 100.
    told = in_order(items(200), [0] * 188 + [1, 1, -1, 1, 1, 1, 1, -1, 1, 1, 1, 1])
    assert judge(told, EXACT).verdict == "pass"
    # 8 wins, 2 losses: p = 0.0547.
    assert judge(in_order(items(10), [1, -1, 1, 1, 1, -1, 1, 1, 1, 1]), EXACT).verdict == "inconclusive"
    # 11 wins, 4 losses... p = 0.0592; 12 and 5 0.0717; 9 and 2: 0.0327, above a final alpha of 0.03.
    early = replace(EXACT, alpha_early=0.02, alpha_final=0.03)
    told = in_order(items(11), [1, -1, 1, 1, 1, -1, 1, 1, 1, 1, 1])
    assert (judge(told, EXACT).verdict, judge(told, early).verdict) == ("pass", "inconclusive")
    assert judge(told, EXACT).level == pytest.approx(0.92)


def test_looks_are_thinned_and_the_last_is_kept():
    found = judge(in_order(items(450), [0] * 450), EXACT)
    assert [look.items for look in found.looks] == list(range(3, 451, 3))
    assert found.stopped_at is None and found.e_value == pytest.approx(1.0)


def test_a_judge_counts_by_the_sign_test():
    scores = {1: (0, 1), 0: (0.5, 0.5), -1: (1, 0)}
    pairs = [scores[gap] for gap in [1] * 12 + [0] * 20 + [-1] * 2]
    found = judge(of_scores([b for b, _ in pairs], [c for _, c in pairs]), declare())
    assert (found.method, found.verdict) == ("sign", "pass")
    assert found.p_value == exact_p(12, 2)


def test_several_samples_are_estimated_from_their_means():
    rng = np.random.default_rng(0)
    pack = items(60)
    scores = [((rng.random(4) < 0.4).astype(float), (rng.random(4) < 0.7).astype(float)) for _ in pack]
    told = Outcomes(
        pack=tuple(pack), answered=tuple(outcome(i, *s) for i, s in zip(pack, scores, strict=True))
    )
    found = judge(told, declare(samples=4))
    assert (found.method, found.verdict) == ("cluster_robust", "pass")
    assert found.delta == pytest.approx(np.mean([c.mean() - b.mean() for b, c in scores]))


def test_continuous_scores_are_bootstrapped():
    rng = np.random.default_rng(0)
    baseline = rng.random(40) * 0.5
    found = judge(of_scores(baseline, baseline + 0.1 + rng.normal(0, 0.05, 40).clip(-0.1, 0.3)), declare())
    assert (found.method, found.verdict) == ("cluster_bootstrap", "pass")


def test_weights_count():
    found = judge(of_scores([0, 1, 1], [1, 1, 0], weights=[3, 1, 1]), declare())
    assert found.delta == pytest.approx(0.4)
    assert (found.baseline, found.candidate) == pytest.approx((0.4, 0.8))


def test_missing_answers_are_counted():
    item = Item(id="a")
    told = replace(outcome(item, (0, 0, 1), (0, 1, 1)), missing_baseline=2, missing_candidate=1)
    found = judge(Outcomes(pack=(item,), answered=(told,)), declare(samples=3))
    assert (found.counts.missing_base, found.counts.missing_cand) == (2, 1)


@pytest.mark.parametrize(
    ("told", "design", "message"),
    [
        (Outcomes(pack=(Item(id="a"),), answered=()), declare(), "no item was answered"),
        (of_counts(n11=3), declare(samples=2), "1 samples of each item, but the design declares 2"),
        (of_counts(n11=3), declare(sequential=True), "method is 'auto'"),
        (of_scores([0.2], [0.4]), declare(method="sign"), "scores are continuous"),
    ],
)
def test_what_cannot_be_judged(told: Outcomes, design: Any, message: str):
    with pytest.raises(EvidenceError, match=message):
        judge(told, design)


@given(
    st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=1, max_size=40),
    st.sampled_from(["mcnemar_exact", "sign", "tango_score", "cluster_robust"]),
    st.booleans(),
)
def test_every_judgement_agrees_with_itself(gaps: list[int], method: str, sequential: bool):
    claim = MARGIN if method == "tango_score" else {}
    design = declare(method=method, sequential=sequential, **claim)
    found = judge(in_order(items(len(gaps)), gaps), design)
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(record) == {
        "design", "counts", "effect", "p_value", "mcnemar_p", "e_value", "critical", "pairwise_losses",
        "aggregate", "power", "looks", "verdict", "reasons",
    }  # fmt: skip
    low, high = found.ci
    assert -1 <= low <= found.delta + 1e-12 and found.delta - 1e-12 <= high <= 1
    assert 0 <= found.p_value <= 1
    if found.stopped_at is None:
        assert (found.verdict == "pass") == (found.p_value <= found.design.alpha_final)
    assert sum((found.counts.n11, found.counts.n10, found.counts.n01, found.counts.n00)) == (
        found.stopped_at or len(gaps)
    )


@given(st.lists(st.sampled_from([-1, 0, 1, 1]), min_size=1, max_size=60))
def test_the_monitor_and_the_verdict_say_the_same(gaps: list[int]):
    pack = items(60)
    monitor = Monitor(EXACT, pack)
    told: list[int] = []
    for item, gap in zip(pack, gaps, strict=False):
        told.append(gap)
        said = monitor.tell(in_order([item], [gap]).answered[0])
        if said is not Advice.GO_ON:
            break
    found = judge(in_order(pack[: len(told)], told, rest=tuple(pack[len(told) :])), EXACT)
    if said is Advice.GO_ON:
        assert found.stopped_at is None
    else:
        assert (found.verdict, found.stopped_at) == (said.value, len(told))


def test_false_passes_of_the_whole_sequential_verdict():
    """150 comparisons of 60 items of two like models: at most 5 % pass; 10.4 % is 3 deviations above 5 %."""
    rng = np.random.default_rng(0)
    pack = items(60)
    gaps = rng.choice([-1, 0, 1], p=[0.2, 0.6, 0.2], size=(150, 60))
    passed = [judge(in_order(pack, row.tolist()), EXACT).verdict == "pass" for row in gaps]
    assert np.mean(passed) <= 0.104
