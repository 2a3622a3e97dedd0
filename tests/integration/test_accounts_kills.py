"""A few seeded kills of a gateway's accounts; the long campaign is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.testing.accounts_campaign import FINISH_NAMES, WORKER_NAMES, run_trial
from modelyard.testing.kills import Kill, failpoint_kills, random_kills

pytestmark = pytest.mark.kill


@pytest.mark.parametrize("kill", failpoint_kills(only=(*FINISH_NAMES, *WORKER_NAMES), later=(1,)), ids=str)
def test_every_failpoint_is_survived(kill: Kill, tmp_path: Path) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, 1)
    assert not broken
    if kill.failpoint.partition(":")[0] in FINISH_NAMES:
        assert survival.killed == 1, "the failpoint was never passed"
    else:
        assert len(list((tmp_path / "trial").glob("provider.*"))) == 3, "no worker came in a dead one's place"


@pytest.mark.parametrize("kill", random_kills(2, within_s=2.0, seed=20261126), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, 2)
    assert not broken
