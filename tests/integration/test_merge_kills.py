"""A few seeded kills of `modelyard merge`; the long campaign is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.core.failpoints import MERGE_NAMES
from modelyard.testing.kills import Kill, failpoint_kills, random_kills
from modelyard.testing.merge_campaign import Yardstick, prepare, run_trial

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture(scope="module")
def yardstick(tmp_path_factory: pytest.TempPathFactory) -> Yardstick:
    return prepare(tmp_path_factory.mktemp("merge") / "inputs", layers=24, width=512)


@pytest.mark.parametrize("kill", failpoint_kills(only=MERGE_NAMES, later=(1, 2)), ids=str)
def test_every_failpoint_is_survived(kill: Kill, tmp_path: Path, yardstick: Yardstick) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, 1, yardstick=yardstick)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize("kill", random_kills(4, within_s=0.7, seed=20261124), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path, yardstick: Yardstick) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, 2, yardstick=yardstick)
    assert not broken
