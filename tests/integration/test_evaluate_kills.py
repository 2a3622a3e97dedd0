"""A few seeded kills of `modelyard evaluate`; the long campaign is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.core.failpoints import EVALUATE_NAMES
from modelyard.testing.evaluate_campaign import Yardstick, prepare, run_trial
from modelyard.testing.kills import Kill, failpoint_kills, random_kills

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture(scope="module")
def yardstick(tmp_path_factory: pytest.TempPathFactory) -> Yardstick:
    return prepare(tmp_path_factory.mktemp("evaluate") / "inputs", questions=80)


@pytest.mark.parametrize("kill", failpoint_kills(only=EVALUATE_NAMES, later=(1,)), ids=str)
def test_every_failpoint_is_survived(kill: Kill, tmp_path: Path, yardstick: Yardstick) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, 1, yardstick=yardstick)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize("kill", random_kills(4, within_s=2.0, seed=20261125), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path, yardstick: Yardstick) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, 2, yardstick=yardstick)
    assert not broken
