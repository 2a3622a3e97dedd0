from __future__ import annotations

import pandas as pd
import pytest

from modelyard.core.faults import Faults, Section
from modelyard.ensemble.policies.settings import read_settings

REQUIRED = {"horizon": 6, "period": 24, "step_s": 3600, "validation_until": "2024-02-01T00:00"}


def read(**changes):
    faults = Faults(file="spec.json")
    section = Section(REQUIRED | changes, faults=faults)
    found = read_settings(section)
    section.close()
    return found, [fault.key for fault in faults.found]


def test_defaults_and_naive_times_are_utc():
    found, faults = read()
    assert faults == []
    assert found.validation_until == pd.Timestamp("2024-02-01", tz="UTC")
    assert (found.method, found.beta, found.dirty_interval, found.amplitude_window) == ("auto", 0.99, 3, 24)
    assert found.mutant_epsilon is None


def test_beta_may_be_one_or_auto():
    assert read(beta=1)[0].beta == 1.0
    assert read(beta="auto")[0].beta is None


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 0},
        {"beta": 1.01},
        {"dirty_interval": -1},
        {"amplitude_window": 0},
        {"mutant_epsilon": 0},
        {"mutant_epsilon": "big"},
        {"method": "magic"},
        {"horizon": 0},
        {"period": "day"},
        {"step_s": 0},
        {"validation_until": "soon"},
        {"betta": 0.9},
    ],
    ids=str,
)
def test_every_wrong_field_is_named(change):
    assert read(**change)[1] == list(change)


def test_detectors_coverage_and_staleness_are_read_and_refused():
    found, faults = read(drift="adwin", coverage=0.8, max_staleness_s=3600)
    assert faults == []
    assert (found.drift, found.coverage, found.max_staleness_s) == ("adwin", 0.8, 3600.0)
    assert read()[0].max_staleness_s is None
    assert read(drift="ddm", coverage=1, max_staleness_s=0)[1] == ["drift", "coverage", "max_staleness_s"]
