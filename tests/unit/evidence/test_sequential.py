"""E-processes: against numerical integration, their promise by simulation, and what the monitor says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from tests.unit.evidence.made_outcomes import outcome

from modelyard.core.errors import EvidenceError
from modelyard.evidence.design import Design, declare
from modelyard.evidence.outcomes import Item, asking_order
from modelyard.evidence.sequential import (
    BETS,
    GREATEST,
    Advice,
    Monitor,
    Watch,
    betting_log_wealth,
    discordant_log_e,
)

EXACT = declare(sequential=True, method="mcnemar_exact")
MARGIN: dict[str, Any] = {"alternative": "non_inferiority", "margin": 0.1}


def items(count: int, **fields: Any) -> list[Item]:
    return [Item(id=str(number), **fields) for number in range(count)]


def tell_all(design: Design, pack: list[Item], gaps: list[int]) -> list[Advice]:
    """What the monitor says after each item; 1 is a win, -1 a loss, 0 both pass."""
    monitor = Monitor(design, pack)
    scores = {1: (0, 1), -1: (1, 0), 0: (1, 1)}
    return [
        monitor.tell(outcome(item, scores[gap][:1], scores[gap][1:]))
        for item, gap in zip(pack, gaps, strict=False)
    ]


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 1), (9, 2), (3, 12), (40, 31)])
def test_the_mixture_is_the_integral_that_it_says(wins: int, losses: int):
    def ratio(share: float) -> float:
        prior = 2 * stats.beta.pdf(share, 0.5, 0.5)
        return float(prior * (2 * share) ** wins * (2 * (1 - share)) ** losses)

    expected = integrate.quad(ratio, 0.5, 1, limit=200)[0]
    assert math.exp(discordant_log_e(wins, losses)) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_mixture_is_a_martingale_at_one_half(wins: int, losses: int):
    """One more discordant pair leaves the wealth where it is, on average."""
    now, won, lost = np.exp(discordant_log_e([wins, wins + 1, wins], [losses, losses, losses + 1]))
    assert (won + lost) / 2 == pytest.approx(now, rel=1e-9)


def test_the_wealth_of_bets_is_the_mean_over_the_bets():
    x = np.array([1.0, -0.5, 0.0, 0.25])
    expected = np.mean([[np.prod(1 + bet * x[:n]) for n in range(1, 5)] for bet in BETS], axis=0)
    np.testing.assert_allclose(np.exp(betting_log_wealth(x)), expected)


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_the_mixture_seldom_ever_passes_a_candidate_that_is_no_better(share: float):
    """1,000 runs of 120 discordant pairs at 1/20: at most 5 % ever cross; 7 % is 2.9 deviations above."""
    won = np.random.default_rng(0).random((1000, 120)) < share
    wins = won.cumsum(axis=1)
    crossed = (discordant_log_e(wins, np.arange(1, 121) - wins) >= np.log(20)).any(axis=1)
    assert crossed.mean() <= 0.07


@pytest.mark.parametrize("x", [[-0.98, 0.02], [-1.0, 0.4, 0.1], [-0.2, 0.2]])
def test_bets_seldom_ever_win_where_the_mean_is_nothing(x: list[float]):
    """As above; chances are chosen so that the mean is 0."""
    low, high = x[0], x[-1]
    chance = high / (high - low)
    drawn = np.where(np.random.default_rng(1).random((1000, 200)) < chance, low, high)
    crossed = (betting_log_wealth(drawn) >= np.log(20)).any(axis=1)
    assert crossed.mean() <= 0.07


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=60))
def test_a_watch_follows_the_formulas(gaps: list[int]):
    pack = items(len(gaps))
    scores = {1: ((0,), (1,)), -1: ((1,), (0,)), 0: ((1,), (1,))}
    told = [outcome(item, *scores[gap]) for item, gap in zip(pack, gaps, strict=True)]
    exact, against = Watch(EXACT, pack), Watch(declare(sequential=True, method="tango_score", **MARGIN), pack)
    x = np.array(gaps, np.float64)
    wins, losses = (x == 1).cumsum(), (x == -1).cumsum()
    for_claim, mirrored = betting_log_wealth(x + 0.1), betting_log_wealth(-(x + 0.1) / 1.1)
    for place, each in enumerate(told):
        look, bet = exact.tell(each), against.tell(each)
        assert look is not None and bet is not None
        assert look.items == bet.items == place + 1
        assert look.e_value == pytest.approx(math.exp(discordant_log_e(wins[place], losses[place])))
        assert look.e_against == pytest.approx(math.exp(discordant_log_e(losses[place], wins[place])))
        assert bet.e_value == pytest.approx(math.exp(for_claim[place]))
        assert bet.e_against == pytest.approx(math.exp(mirrored[place]))


def test_clusters_are_looked_at_when_they_are_whole():
    pack = [Item(id=str(n), cluster="xxyyy"[n], weight=n + 1.0) for n in range(5)]
    watch = Watch(declare(sequential=True, method="cluster_robust"), pack)
    told = [watch.tell(outcome(item, (0,), (1,))) for item in pack]
    assert [look.items if look else None for look in told] == [None, 2, None, None, 5]
    # The greatest weight of the pack bounds the sums, although its cluster comes last.
    x = np.array([3 / 12, 12 / 12])
    np.testing.assert_allclose([look.e_value for look in watch.looks], np.exp(betting_log_wealth(x)))


def test_a_torn_cluster_is_refused():
    pack = [Item(id="a", cluster="x"), Item(id="b"), Item(id="c", cluster="x")]
    with pytest.raises(EvidenceError, match="'x' is torn apart"):
        Monitor(declare(sequential=True, method="cluster_robust"), pack)
    Monitor(declare(sequential=True, method="cluster_robust"), asking_order(pack, 0))


def test_a_method_must_be_named_beforehand():
    with pytest.raises(EvidenceError, match="choose it with chosen_method"):
        Monitor(declare(sequential=True), items(3))


def test_an_enormous_e_value_stays_a_number():
    watch = Watch(EXACT, items(1200))
    for item in items(1200):
        watch.tell(outcome(item, (0,), (1,)))
    assert watch.looks[-1].e_value == pytest.approx(GREATEST)
    assert watch.looks[-1].e_against == 0


def test_a_run_of_wins_passes_and_a_run_of_losses_fails():
    needed = next(n for n in range(99) if discordant_log_e(n, 0) >= math.log(100))
    for gap, end in ((1, Advice.PASS), (-1, Advice.FAIL)):
        said = tell_all(EXACT, items(30), [gap] * 30)
        assert said == [Advice.GO_ON] * (needed - 1) + [end] * (31 - needed)


def test_nothing_discordant_goes_on():
    assert set(tell_all(EXACT, items(50), [0] * 50)) == {Advice.GO_ON}


def test_against_a_margin_it_passes_without_any_difference():
    said = tell_all(declare(sequential=True, method="tango_score", **MARGIN), items(200), [0] * 200)
    assert said[-1] is Advice.PASS and said[20] is Advice.GO_ON


def test_a_proven_claim_waits_for_critical_items_only():
    pack = [*items(20), Item(id="c1", critical=True), Item(id="plain"), Item(id="c2", critical=True)]
    monitor = Monitor(EXACT, pack)
    said = [monitor.tell(outcome(item, (0,), (1,))) for item in pack[:20]]
    assert said[-1] is Advice.CRITICAL
    assert monitor.tell(outcome(pack[20], (1,), (1,))) is Advice.CRITICAL
    with pytest.raises(EvidenceError, match="but 'c2' is next"):
        monitor.tell(outcome(Item(id="nobody"), (1,), (1,)))
    assert monitor.tell(outcome(pack[22], (1,), (1,))) is Advice.PASS
    looked = len(monitor.looks)
    assert looked == 8  # none after the proof


def test_whoever_asks_on_after_the_proof_is_told_the_same():
    pack = [*items(20), Item(id="plain"), Item(id="c2", critical=True)]
    assert tell_all(EXACT, pack, [1] * 22)[-2:] == [Advice.CRITICAL, Advice.PASS]


def test_a_critical_failure_after_the_proof_fails():
    pack = [*items(20), Item(id="c", critical=True)]
    assert tell_all(EXACT, pack, [1] * 20 + [-1])[-2:] == [Advice.CRITICAL, Advice.FAIL]
    allowed = declare(sequential=True, method="mcnemar_exact", critical_failures_allowed=1)
    assert tell_all(allowed, pack, [1] * 20 + [-1])[-1] is Advice.PASS


def test_a_budget_of_losses_is_over_the_whole_pack():
    design = declare(sequential=True, method="mcnemar_exact", losses_allowed=1)
    assert tell_all(design, items(20), [1] * 18 + [-1, 0]) == [Advice.GO_ON] * 19 + [Advice.PASS]
    assert tell_all(design, items(20), [1] * 17 + [-1, -1, 0])[-2:] == [Advice.FAIL, Advice.FAIL]


def test_without_early_stopping_only_budgets_end_it():
    design = declare(losses_allowed=0)
    assert tell_all(design, items(40), [1] * 39 + [-1]) == [Advice.GO_ON] * 39 + [Advice.FAIL]
    assert Monitor(design, items(3)).looks == ()


def test_another_item_than_the_next_is_refused():
    monitor = Monitor(EXACT, items(3))
    with pytest.raises(EvidenceError, match="told of item '1', but '0' is next"):
        monitor.tell(outcome(Item(id="1"), (1,), (1,)))
    tell = [monitor.tell(outcome(item, (1,), (1,))) for item in items(3)]
    assert tell == [Advice.GO_ON] * 3
    with pytest.raises(EvidenceError, match="no item is left"):
        monitor.tell(outcome(Item(id="0"), (1,), (1,)))
