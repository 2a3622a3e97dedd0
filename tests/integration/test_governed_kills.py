"""A few seeded kills of a governed run with promotion in it; the long campaign is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.testing.governed_campaign import run_trial
from modelyard.testing.kills import Kill, failpoint_kills, random_kills

pytestmark = [pytest.mark.kill, pytest.mark.slow]
#: Where a death would lose or repeat something: around the submission and the certificate.
POINTS = ("governed.after_intent", "governed.after_submitted", "governed.after_proof", "governed.after_pass")


@pytest.mark.parametrize("kill", failpoint_kills(only=POINTS, later=(1,)), ids=str)
def test_every_failpoint_is_survived(kill: Kill, tmp_path: Path) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, 1)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize("kill", random_kills(2, within_s=4.0, seed=20261126), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, 2)
    assert not broken
