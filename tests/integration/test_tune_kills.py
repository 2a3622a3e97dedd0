"""A few seeded kills of `modelyard tune`; the long campaign is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.testing.kills import Kill, failpoint_kills, random_kills
from modelyard.testing.tune_campaign import Yardstick, prepare, run_trial

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Yardstick:
    """One trial at a time: after a kill the search is the same to the last value."""
    return prepare(tmp_path_factory.mktemp("tune") / "alone", "asha", parallel=1, trials=6)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Yardstick:
    """Three at a time: none is lost and none is doubled."""
    return prepare(tmp_path_factory.mktemp("tune") / "together", "hyperband", parallel=3, trials=8)


@pytest.mark.parametrize("kill", failpoint_kills(only=["tuner.after_stopping"], later=(1,)), ids=str)
def test_a_tuner_that_dies_while_it_stops_a_trial_is_survived(
    kill: Kill, tmp_path: Path, alone: Yardstick
) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, 1, yardstick=alone)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize(
    "kill",
    failpoint_kills(only=["runner.after_submit", "runner.after_finished"], later=(2,)),
    ids=str,
)
def test_a_tuner_that_dies_over_its_jobs_is_survived(kill: Kill, tmp_path: Path, alone: Yardstick) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, 2, yardstick=alone)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize("kill", random_kills(3, within_s=2.5, seed=20261126), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path, together: Yardstick) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, 3, yardstick=together)
    assert not broken
