"""A few seeded kills of `modelyard train`; the long campaign is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.testing.kills import Kill, failpoint_kills, random_kills
from modelyard.testing.train_campaign import run_trial

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.mark.parametrize("kill", failpoint_kills(later=(1,)), ids=str)
def test_every_failpoint_is_survived(kill: Kill, tmp_path: Path) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, members=3, seconds=0.1, seed=1)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"
    assert survival.looks > 0


@pytest.mark.parametrize("kill", random_kills(6, within_s=1.2, seed=20261122), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, members=4, seconds=0.3, seed=2)
    assert not broken
