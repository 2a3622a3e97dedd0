from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.errors import PolicyError
from modelyard.ensemble.runtime.drift import LONGEST, Drift
from modelyard.ensemble.runtime.engine import Engine
from modelyard.ensemble.runtime.mutants import shocks

pytest.importorskip("river")
KINDS = ("page_hinkley", "adwin", "kswin")


def shifted(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, 600) * np.where(np.arange(600) < 300, 1.0, 4.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_found_and_quiet_is_not(kind):
    drift = Drift(kind, 1.0)
    found = [t for t, value in enumerate(shifted()) if drift.seen(value)]
    assert 300 <= found[0] < 400


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [250, 320, 420])
def test_a_detector_is_restored_bit_for_bit(kind, stop):
    values, one, other = shifted(1), Drift(kind, 2.0), Drift(kind, 2.0)
    for value in values[:stop]:
        one.seen(value)
    other.since[...] = one.since
    other.restore()
    assert [one.seen(v) for v in values[stop:]] == [other.seen(v) for v in values[stop:]]
    assert np.array_equal(one.since, other.since)


def test_a_detector_begins_anew_when_it_was_fed_long_enough():
    drift = Drift("page_hinkley", 1.0)
    for _ in range(LONGEST):
        drift.seen(1.0)
    assert drift.since[0] == 0
    assert not drift.seen(np.nan)


def test_detectors_that_are_not_known_are_refused():
    with pytest.raises(PolicyError, match="page_hinkley"):
        Drift("ddm", 1.0)


def test_a_drift_makes_mutants_in_the_engine_and_in_the_scorecard(world):
    truth = 20 + shifted()[:240] * 0.2
    truth[120:] = 20 + np.random.default_rng(3).normal(0, 1.0, 120)
    forecast = np.full((240, 3, 5), 20.0)
    plain = world.setup(offline=(), online=("a", "b", "c", "d", "e"), dirty_interval=2)
    limits = replace(plain.limits, shock=1e9, jump=1e9, scale=0.2, period=1)
    told = replace(limits, drift="page_hinkley")
    assert not shocks(truth, limits).any()
    found = np.flatnonzero(shocks(truth, told))
    assert len(found) and found[0] >= 120
    one = replace(world, truth=truth, forecast=forecast)
    issued = one.run(engine=Engine(replace(plain, limits=told)))
    assert [t for t in found if t < len(issued)] == [
        t for t in range(len(issued)) if issued[t].dirty_h.any() and not issued[t - 1].dirty_h.any()
    ]
