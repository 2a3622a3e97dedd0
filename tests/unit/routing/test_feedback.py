"""Learning in service: what is followed, what is left alone, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import RoutingError
from modelyard.routing.feedback import learned
from modelyard.routing.profiles import Profiles

DEVIATIONS = 1.645  # of a 90 % interval


def profiles(psi=0.2, answers=50, models=("a", "b"), clusters=3):
    """Models that are known from so many answers in each cluster."""
    shape = (len(models), clusters)
    sd = np.sqrt(psi * (1 - psi) / (answers + 1))
    return Profiles(
        names=models, psi_mk=np.full(shape, psi), sd_mk=np.full(shape, sd),
        answers_mk=np.full(shape, answers), cost_usd_m=np.ones(len(models)), cost_usd_mk=np.ones(shape),
        errors_mn=np.zeros((len(models), 0)),
    )  # fmt: skip


def answers(chance, rate, count, cluster=0):
    return np.full(count, cluster), (chance.random(count) < rate).astype(float)


def test_only_the_model_and_the_cluster_that_answered_change():
    before = profiles()
    after = learned(before, "b", *answers(np.random.default_rng(0), 0.9, 100, cluster=1), half_life=500)
    changed = after.psi_mk != before.psi_mk
    assert changed.tolist() == [[False] * 3, [False, True, False]]
    assert (after.sd_mk != before.sd_mk).tolist() == changed.tolist()
    assert after.answers_mk.tolist() == [[50] * 3, [50, 150, 50]]
    assert before.psi_mk[1, 1] == 0.2, "the old ones are untouched"


def test_without_decay_it_is_the_posterior_of_counts():
    """50 answers with a fifth wrong, then 100 with half wrong: (10 + 50) / 150."""
    errors = np.tile([0.0, 1.0], 50)
    after = learned(profiles(), "a", np.zeros(100, np.int64), errors, half_life=1e9)
    assert after.psi_mk[0, 0] == pytest.approx(60 / 150, abs=1e-6)
    assert after.sd_mk[0, 0] == pytest.approx(np.sqrt(0.4 * 0.6 / 151), rel=1e-3)


def test_costs_are_followed_where_they_are_known():
    """50 answers at 1 USD, then 50 at 3 and 10 unknown: 2 in that cluster; elsewhere and for `b` still 1."""
    cluster, errors = np.ones(60, np.int64), np.tile([0.0, 0.0, 0.0, 0.0, 1.0], 12)
    costs = np.concatenate([np.full(50, 3.0), np.full(10, np.nan)])
    after = learned(profiles(), "a", cluster, errors, half_life=1e9, costs_usd_n=costs)
    np.testing.assert_allclose(after.cost_usd_mk, [[1, 2, 1], [1, 1, 1]], atol=1e-6)
    assert after.cost_usd_m[0] == pytest.approx(1 + 110 / 210), "by its answers in each cluster"
    assert after.cost_usd_m[1] == 1.0
    untold = learned(profiles(), "a", cluster, errors, half_life=1e9)
    np.testing.assert_array_equal(untold.cost_usd_mk, profiles().cost_usd_mk)
    np.testing.assert_array_equal(untold.psi_mk, after.psi_mk)


def test_a_price_that_changed_is_followed_within_four_half_lives():
    after = learned(
        profiles(), "a", np.zeros(200, np.int64), np.zeros(200), half_life=50, costs_usd_n=np.full(200, 3.0)
    )
    assert 2.75 < after.cost_usd_mk[0, 0] < 3.0


def test_choosing_by_cluster_needs_no_weights_and_choosing_by_prompt_does():
    """Half of a cluster's prompts are hard (80 % wrong), half easy (10 %): 45 % on all of them.

    Asked of every fifth request of the cluster by lot, or of all, 45 % is learned. Asked of easy prompts nine
    times as often as of hard ones, it is 0.9 * 0.1 + 0.1 * 0.8 = 17 %, which no decay mends.
    """

    def found(chance_easy: float, chance_hard: float) -> float:
        means = []
        for seed in range(40):
            chance = np.random.default_rng(seed)
            hard = chance.random(3000) < 0.5
            asked = chance.random(3000) < np.where(hard, chance_hard, chance_easy)
            errors = (chance.random(3000) < np.where(hard, 0.8, 0.1))[asked].astype(float)
            known = profiles(psi=0.3, answers=10)
            after = learned(known, "a", np.zeros(len(errors), np.int64), errors, half_life=1e9)
            means.append(after.psi_mk[0, 0])
        return float(np.mean(means))

    assert found(0.2, 0.2) == pytest.approx(0.45, abs=0.01) and found(1, 1) == pytest.approx(0.45, abs=0.01)
    assert found(0.9, 0.1) == pytest.approx(0.17, abs=0.01)


def test_in_parts_or_at_once_is_the_same():
    clusters, errors = answers(np.random.default_rng(1), 0.4, 300)
    at_once = learned(profiles(), "a", clusters, errors, half_life=200)
    parts = profiles()
    for begin in range(0, 300, 60):
        part = slice(begin, begin + 60)
        parts = learned(parts, "a", clusters[part], errors[part], half_life=200)
    np.testing.assert_allclose(parts.psi_mk, at_once.psi_mk, atol=1e-9)
    np.testing.assert_allclose(parts.sd_mk, at_once.sd_mk, atol=1e-9)


def test_a_model_that_degrades_is_followed_within_two_half_lives():
    """From 10 % to 60 % wrong: after 400 answers at a half-life of 200 above 40 %, in 58 of 60 draws."""
    found = 0
    for seed in range(60):
        chance = np.random.default_rng(seed)
        after = learned(profiles(psi=0.1, answers=300), "a", *answers(chance, 0.6, 400), half_life=200)
        found += after.psi_mk[0, 0] > 0.4
    assert found >= 58


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """A model that stays as it is: the 90 % interval holds it in 86 to 97 % of 500 draws.

    The discount makes the interval as wide as `half_life / log 2` answers are worth, a little wider than
    what weighted answers leave open, so that it errs on the safe side.
    """
    held = 0
    for seed in range(500):
        chance = np.random.default_rng(seed)
        truth = chance.uniform(0.1, 0.9)
        seen = (chance.random(100) < truth).mean()
        known = profiles(psi=min(max(seen, 0.02), 0.98), answers=100)
        after = learned(known, "a", *answers(chance, truth, 600), half_life=500)
        held += abs(after.psi_mk[0, 0] - truth) <= DEVIATIONS * after.sd_mk[0, 0]
    assert 0.86 <= held / 500 <= 0.97


def test_a_model_that_became_better_is_found_by_exploring_only():
    """`b` is better now, but `a` is chosen: with every twentieth request explored it wins, else never."""

    def served(explored: float) -> str:
        known, chance = profiles(psi=0.3, models=("a", "b"), clusters=1), np.random.default_rng(7)
        known = learned(known, "b", *answers(chance, 1.0, 30), half_life=1e9)  # what it once was
        rates = {"a": 0.3, "b": 0.05}
        for _ in range(4000):
            best = known.names[int(np.argmin(known.psi_mk[:, 0]))]
            asked = "b" if chance.random() < explored else best
            known = learned(known, asked, *answers(chance, rates[asked], 1), half_life=50)
        return known.names[int(np.argmin(known.psi_mk[:, 0]))]

    assert served(0.05) == "b" and served(0.0) == "a"


@given(
    st.floats(0, 1),
    st.floats(0, 0.5),
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.floats(0.5, 1e6),
)
def test_what_is_known_stays_within_what_errors_can_be(psi, sd, errors, half_life):
    known = profiles(clusters=1)
    known.psi_mk[:], known.sd_mk[:] = psi, sd
    after = learned(known, "a", np.zeros(len(errors), np.int64), np.array(errors), half_life=half_life)
    assert 0 <= after.psi_mk[0, 0] <= 1 and 0 < after.sd_mk[0, 0] < 0.6


def test_what_cannot_be_is_refused():
    zero = np.zeros(1, np.int64)
    with pytest.raises(RoutingError, match="'c' is not in the router"):
        learned(profiles(), "c", zero, np.zeros(1), half_life=5)
    with pytest.raises(RoutingError, match="an error of 'a' is not within 0 and 1, but 2 to 2"):
        learned(profiles(), "a", zero, np.full(1, 2.0), half_life=5)
    with pytest.raises(RoutingError, match="an answer of 'a' costs -1 USD; give a number of at least 0"):
        learned(profiles(), "a", zero, np.zeros(1), half_life=5, costs_usd_n=np.full(1, -1.0))
    with pytest.raises(RoutingError, match="2 costs of 1 answers of 'a'"):
        learned(profiles(), "a", zero, np.zeros(1), half_life=5, costs_usd_n=np.ones(2))
    with pytest.raises(RoutingError, match="a half-life of 0"):
        learned(profiles(), "a", zero, np.zeros(1), half_life=0)
    with pytest.raises(RoutingError, match="not within 0 and 1"):
        learned(profiles(), "a", zero, np.full(1, np.nan), half_life=5)
