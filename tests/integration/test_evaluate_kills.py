"""A few seeded kills of `modelyard evaluate`; the long campaign is `make soak`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.core.failpoints import EVALUATE_NAMES
from modelyard.testing.evaluate_campaign import Yardstick, prepare, run_trial
from modelyard.testing.kills import Kill, failpoint_kills, random_kills
from modelyard.testing.openai_server import fake_server

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


def test_a_driver_killed_over_its_shards_asks_nothing_twice(tmp_path: Path) -> None:
    """Jobs outlive their driver: meanwhile nobody else asks the model, and the same command adopts them."""
    rows = [
        {"id": f"q{i}", "prompt": f"{i} + 1", "answers": [str(i + 1)], "scorer": "numeric"}
        for i in range(120)
    ]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "modelyard.cli.main",
        "evaluate",
        "yard.yaml",
        "--set",
        "sums.jsonl",
        "--json",
    ]
    sharded = [*command, "--shards", "2"]
    with fake_server(tmp_path / "log.jsonl", "--delay-s", "0.2") as server:
        pool = [{"name": "adder", "endpoint": server.endpoint, "parallel": 2}]
        (tmp_path / "yard.yaml").write_text(json.dumps({"name": "y", "pool": pool}))
        with subprocess.Popen(
            sharded, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as driver:
            while len(server.requests()) < 20:
                assert driver.poll() is None
                time.sleep(0.05)
            driver.kill()
        alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert alone.returncode == 1 and "a job asks this model now" in alone.stdout
        resumed = subprocess.run(sharded, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert resumed.returncode == 0, resumed.stderr
        asked = [each["key"] for each in server.requests()]
    assert json.loads(resumed.stdout)["models"][0]["mean_score"] == 1.0
    assert len(asked) == len(set(asked)) == 120
