from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelyard.ensemble.measuring.certificate import certify_regret
from modelyard.ensemble.measuring.peers import roll_peer
from modelyard.ensemble.runtime.matrix import SeriesMatrix


def part_of(world):
    return SeriesMatrix(
        series="s",
        start_us=0,
        truth_t=world.truth,
        forecast_thk=world.forecast,
        staleness_s_thk=np.zeros_like(world.forecast),
    )


def issued(world, setup):
    out = np.full(world.forecast.shape[:2], np.nan)
    leads = np.arange(world.forecast.shape[1])
    for origin, one in enumerate(world.run(setup)):
        out[origin + 1 + leads, leads] = one.forecast_h
    return out


@pytest.mark.parametrize("method", ["committee", "boa"])
@pytest.mark.parametrize("seed", range(2))
def test_the_bound_holds_against_an_adversary(make_world, method, seed):
    world = make_world(seed)
    flips = np.random.default_rng(seed).random(240) < 0.5
    hostile = replace(
        world,
        truth=np.nan_to_num(np.where(flips, world.forecast[:, 0, 0], world.forecast[:, 0, 3]), nan=20.0),
    )
    setup = hostile.setup(method=method)
    found = certify_regret(setup, [part_of(hostile)], [issued(hostile, setup)])
    assert found["held"] is True
    assert [entry["lead"] for entry in found["leads"]] == [1, 2, 3]
    assert all(entry["realised"] <= entry["bound"] for entry in found["leads"])


def test_a_policy_that_follows_the_worst_breaks_it(world):
    setup = world.setup(method="boa")
    worst = world.forecast[:, :, 4] + 100.0
    found = certify_regret(setup, [part_of(world)], [worst])
    assert found["held"] is False


def test_a_rule_without_a_bound_is_given_none(world):
    setup = world.setup(method="uniform")
    found = certify_regret(setup, [part_of(world)], [issued(world, setup)])
    assert found["held"] is None
    assert {entry["bound"] for entry in found["leads"]} == {None}


class Newest:
    """A mixer that says the newest truth it was taught."""

    def __init__(self, experts):
        self.known = 0.0

    def predict(self, row):
        return self.known

    def learn(self, row, truth):
        self.known = truth


@pytest.mark.parametrize("lead", [1, 3])
def test_a_peer_learns_a_row_when_its_truth_is_known(lead):
    truth = np.arange(1.0, 9.0)
    out = roll_peer(Newest, np.ones((8, 2)), truth, lead)
    assert out.tolist() == [0.0] * lead + truth[:-lead].tolist()


def test_a_peer_is_spared_the_rows_that_it_cannot_take():
    forecast = np.array([[1.0, 2.0], [np.nan, 4.0], [np.nan, np.nan], [5.0, 6.0]])
    out = roll_peer(Newest, forecast, np.array([1.0, 2.0, 3.0, 4.0]), 1)
    assert out[[0, 1, 3]].tolist() == [0.0, 4.0, 1.0]
    assert np.isnan(out[2])
