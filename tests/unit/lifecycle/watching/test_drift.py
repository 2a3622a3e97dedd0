"""The alarm of drift: its level and its power by simulation, and what it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

from modelyard.lifecycle.watching.drift import (
    Blocks,
    DriftRule,
    Lots,
    holm,
    judged,
    look_for_drift,
    permutation_p,
)

SEASON, RECENT, REFERENCE, MEMBERS = 24, 7, 21, 5
LOOKS = 400
#: Three standard errors above 5 % of so many looks.
LEVEL_BOUND = 0.05 + 3 * (0.05 * 0.95 / LOOKS) ** 0.5
RULE = DriftRule(
    validation_until="2024-01-22T00:00+00:00", step_s=3600.0, period=SEASON, recent=RECENT, level=0.05
)


def block_means(rng: np.random.Generator, *, kept: float, blocks: int) -> np.ndarray:
    """Block means of |errors|: an autoregressive series with a season in its size, skewed by the absolute."""
    steps = blocks * SEASON
    noise = rng.standard_normal(steps + SEASON)
    error = lfilter([1.0], [1.0, -kept], noise)
    size = 1.0 + 0.8 * np.sin(np.arange(steps) * 2.0 * np.pi / SEASON)
    return np.asarray(np.abs(error[SEASON:] * size).reshape(blocks, SEASON).mean(axis=1))


def alarms(seed: int, *, kept: float, factor: float = 1.0, looks: int = LOOKS) -> float:
    """The share of looks with any alarm over the members; the first member's recent errors are scaled."""
    rng, lots, count = np.random.default_rng(seed), Lots(), 0
    for _ in range(looks):
        members = {}
        for name in range(MEMBERS):
            means = block_means(rng, kept=kept, blocks=REFERENCE + RECENT)
            recent = means[REFERENCE:] * (factor if name == 0 else 1.0)
            members[str(name)] = Blocks(newest="", reference=means[:REFERENCE], recent=recent, wanted=RECENT)
        count += any(found.drifted for found in judged(members, 0.05, lots).values())
    return count / looks


@pytest.mark.parametrize("kept", [0.0, 0.7, 0.9])
def test_the_level_holds_over_all_members(kept: float) -> None:
    """Error rate of this test: one in 700, where the level is exactly 5 %."""
    assert alarms(20261126, kept=kept) <= LEVEL_BOUND


def test_errors_half_as_large_again_are_found() -> None:
    """The power is 0.95; of 100 looks fewer than 88 find it in one run of 500."""
    assert alarms(20261126, kept=0.0, factor=1.5, looks=100) >= 0.88


def test_neighbouring_days_that_are_alike_are_no_evidence() -> None:
    slow = np.sin(np.arange(28) * np.pi / 14.0) + 2.0  # one wave: the last week is as any other
    assert permutation_p(slow[:7], slow[7:], Lots()) > 0.05


def test_smaller_errors_are_no_alarm() -> None:
    assert permutation_p(np.full(7, 0.5), np.resize([0.9, 1.1], 21), Lots()) == 1.0


def test_the_p_value_is_never_nothing_and_the_same_each_time() -> None:
    given = (np.full(7, 9.0), np.resize([0.9, 1.1], 21), Lots())
    assert permutation_p(*given) == permutation_p(*given) >= 1e-4


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}


@pytest.fixture
def tables(tmp_path: Path, write_drift: Callable[..., None]) -> tuple[Path, Path]:
    """Tables in which `worse` drifts and `same` does not."""
    places = tmp_path / "predictions.parquet", tmp_path / "truth.parquet"
    write_drift(*places, same=1.0, worse=2.0)
    return places


def test_who_drifts_is_read_from_the_tables(tables: tuple[Path, Path]) -> None:
    looks = look_for_drift(*tables, RULE, since={"same": "", "worse": "", "nobody": ""})
    assert {name: found.drifted for name, found in looks.items()} == {"same": False, "worse": True}
    assert looks["worse"].ratio == pytest.approx(2.0, rel=0.15)
    assert looks["worse"].newest == "2024-02-04T23:00:00+00:00"


def test_errors_that_were_acted_on_are_spent(tables: tuple[Path, Path]) -> None:
    found = look_for_drift(*tables, RULE, since={"worse": "2024-01-30T00:00:00+00:00"})["worse"]
    assert (found.p, found.drifted) == (None, False)
    assert look_for_drift(*tables, RULE, since={"worse": "2024-01-28T23:00:00+00:00"})["worse"].drifted


def test_too_little_of_validation_gives_no_verdict(tables: tuple[Path, Path]) -> None:
    short = DriftRule(
        validation_until="2024-01-04T00:00+00:00", step_s=3600.0, period=24, recent=7, level=0.05
    )
    assert look_for_drift(*tables, short, since={"worse": ""})["worse"].p is None
