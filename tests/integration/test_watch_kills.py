"""A few seeded kills of a round of the watch, over a yard of quick real commands."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.lifecycle.watching import quick_yard

from modelyard.core.clock import stamp, utc_now
from modelyard.core.failpoints import WATCH_NAMES
from modelyard.core.journal import Journal
from modelyard.jobs.job import JobState
from modelyard.lifecycle.watching.rounds import take_round
from modelyard.testing.kills import Kill, Trial, failpoint_kills, random_kills, survive
from modelyard.verify.journal import verify_journal

pytestmark = [pytest.mark.kill, pytest.mark.slow]

AT = stamp(utc_now() + timedelta(days=8))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A yard that was run to its end, in a folder of its own, and a copy beside it to begin from."""
    folder = tmp_path_factory.mktemp("watch") / "work"
    path = quick_yard.write_yard(folder)
    take_round(quick_yard.scene(path))
    shutil.copytree(folder, folder.with_name("begun"))
    return path


def killed_round(path: Path, kill: Kill, *broken: str) -> tuple[list[str], int]:
    """Begin from the copy, kill one round and take it up; the promises that broke, how many were killed."""
    folder = path.parent
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("begun"), folder)
    for name in broken:
        (folder / name).touch()
    trial = Trial(
        argv=[sys.executable, str(Path(quick_yard.__file__)), str(path), AT],
        cwd=folder,
        environment={**os.environ, "PYTHONPATH": str(ROOT)},
        json_files=list((folder / "yard" / "runs").glob("*/manifest.json")),
    )
    survival = survive(trial, kill, seed=1)
    entries = list(Journal(folder / "yard" / "journal").read())
    made = [
        e.data
        for e in entries
        if e.kind == "job.finished"
        and e.data["step"] == "train/near"
        and e.data["state"] == JobState.SUCCEEDED.value
        and e.data["reason"] != "restored"
    ]
    (run_dir,) = (folder / "yard" / "runs").iterdir()
    version = (run_dir / "models" / "near" / "model").read_text()
    told = {
        "done": survival.done,
        "nothing alive": not survival.left_alive,
        "manifest is JSON": not survival.broken_json,
        "journal verifies": not verify_journal(folder / "yard" / "journal").faults,
        "asked for once": sum(e.kind == "retrain.asked" for e in entries) == 1,
        "seen to its end once": sum(e.kind == "retrain.ended" for e in entries) == 1,
        "one success": len(made) == (1 if broken else 2),
        "the version": version == "1\n" if broken else version != "1\n",
        "the policy has it": version in (run_dir / "policy.json").read_text().splitlines(keepends=True),
    }
    return [f"{name}: {survival.stderr[-400:]}" for name, held in told.items() if not held], survival.killed


RETRAINED = (
    "watch.after_asked",
    "watch.after_aside",
    "watch.before_ended",
    "watch.after_ended",
    "runner.after_submit",
)
FAILED = ("watch.before_restored", "watch.after_restored")


@pytest.mark.parametrize("kill", failpoint_kills(later=(1,), only=RETRAINED), ids=str)
def test_a_killed_round_trains_once_and_the_policy_takes_it_over(finished: Path, kill: Kill) -> None:
    wrong, killed = killed_round(finished, kill)
    assert not wrong
    assert killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize("kill", failpoint_kills(later=(1,), only=FAILED), ids=str)
def test_a_killed_round_that_fails_leaves_the_old_version(finished: Path, kill: Kill) -> None:
    wrong, killed = killed_round(finished, kill, "bad-near")
    assert not wrong
    assert killed == 1, "the failpoint was never passed"


@pytest.mark.parametrize("kill", random_kills(3, within_s=1.5, seed=20261126), ids=str)
def test_random_instants_are_survived(finished: Path, kill: Kill) -> None:
    wrong, _ = killed_round(finished, kill)
    assert not wrong


def test_every_failpoint_of_a_round_is_visited() -> None:
    assert set(WATCH_NAMES) <= {*RETRAINED, *FAILED}
