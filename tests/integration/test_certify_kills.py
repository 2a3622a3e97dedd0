"""A few seeded kills of `modelyard certify`; the long campaign is `make soak`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.core.failpoints import CERTIFY_NAMES
from modelyard.testing.certify_campaign import SERVER, Yardstick, prepare, run_trial
from modelyard.testing.kills import Kill, failpoint_kills, random_kills
from modelyard.testing.openai_server import fake_server

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture(scope="module")
def yardstick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yardstick]:
    folder = tmp_path_factory.mktemp("certify")
    with fake_server(folder / "log.jsonl", *SERVER) as server:
        yield prepare(folder / "inputs", server, items=24)


@pytest.mark.parametrize(
    "kill",
    [*failpoint_kills(only=CERTIFY_NAMES, later=(1,)), Kill(failpoint="evaluate.after_reply:20")],
    ids=str,
)
def test_every_failpoint_is_survived(kill: Kill, tmp_path: Path, yardstick: Yardstick) -> None:
    survival, broken = run_trial(tmp_path / "trial", kill, 1, yardstick=yardstick)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize("kill", random_kills(1, within_s=2.0, seed=20261126), ids=str)
def test_random_instants_are_survived(kill: Kill, tmp_path: Path, yardstick: Yardstick) -> None:
    _, broken = run_trial(tmp_path / "trial", kill, 2, yardstick=yardstick)
    assert not broken
