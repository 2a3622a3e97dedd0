"""`status`: a run as text, the list of runs, and following one to its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from modelyard.cli.status import as_text
from modelyard.core.errors import RunNotFound, StateError
from modelyard.runs.view import RunView, StepView

Call = Callable[..., Result]


def step(name: str, status: str, **fields: Any) -> StepView:
    blank = {"attempts": 0, "started_at": None, "seconds": None, "cpu_s": None, "note": "", "folder": None}
    return StepView(**{"name": name, "status": status, **blank, **fields})


def view(*steps: StepView, **fields: Any) -> RunView:
    blank = {"run": "r", "kind": "up", "source": "/y", "dir": "/runs/r", "state": "running", "left_s": None}
    return RunView(**{**blank, "done": 1, "total": len(steps), "steps": steps, **fields})


def test_a_run_is_a_line_for_every_step() -> None:
    text = as_text(
        view(
            step("train/tide", "SUCCEEDED", attempts=1, seconds=61.26),
            step("train/far", "FAILED", attempts=3, seconds=0.5, note="exit status 7"),
            step("report", "WAITING"),
            left_s=89.6,
        )
    )
    lines = text.splitlines()
    assert lines[0] == "r: running, 1/3 steps, about 90 s left"
    assert lines[1] == "  /runs/r"
    assert lines[2].split() == ["SUCCEEDED", "train/tide", "61.3", "s"]
    assert lines[3].split() == ["FAILED", "train/far", "0.5", "s", "attempt", "3", "exit", "status", "7"]
    assert lines[4] == "  WAITING    report"


def test_without_an_estimate_none_is_told() -> None:
    assert as_text(view(state="succeeded")).splitlines()[0] == "r: succeeded, 1/0 steps"


@pytest.fixture
def run(call: Call, pool: Callable[..., Path]) -> str:
    """The name of a training run that was executed."""
    assert (
        call("train", "--config", pool(a="echo heard", b="sh -c 'echo told >&2'"), "--execute").exit_code == 0
    )
    (row,) = json.loads(call("status", "--json").stdout)
    return str(row["run"])


def test_all_runs_are_listed(call: Call, run: str) -> None:
    assert call("status").stdout.split()[:4] == [run, "succeeded", "2/2", "steps"]
    (row,) = json.loads(call("status", "--json").stdout)
    assert (row["kind"], row["state"], row["done"], row["total"]) == ("train", "succeeded", 2, 2)
    assert "steps" not in row


def test_one_run_by_its_name_or_the_beginning_of_it(call: Call, run: str) -> None:
    shown = call("status", run)
    assert shown.stdout.startswith(f"{run}: succeeded, 2/2 steps\n")
    assert call("status", run[:6]).stdout == shown.stdout
    record = json.loads(call("status", run, "--json").stdout)
    assert [each["name"] for each in record["steps"]] == ["train/a", "train/b"]
    assert json.loads(call("status", "--follow", "--json").stdout) == record


def test_following_ends_with_the_run(call: Call, run: str) -> None:
    assert call("status", "--follow").stdout.splitlines()[-1] == f"{run}: succeeded"


def test_what_is_not_there_is_told(call: Call, run: str) -> None:
    unknown = call("status", "nobody")
    assert isinstance(unknown.exception, RunNotFound) and run in str(unknown.exception)
    nowhere = call("status", "--yard", "elsewhere")
    assert isinstance(nowhere.exception, StateError) and "--yard" in str(nowhere.exception)


def test_logs_by_step_or_member_and_stream(call: Call, run: str) -> None:
    assert call("logs", run, "train/a").stdout == call("logs", run, "a").stdout == "heard\n"
    assert call("logs", run, "b", "--stream", "stdout").stdout == ""
    assert call("logs", run, "b", "--stream", "stderr").stdout == "told\n"
    unknown = call("logs", run, "c")
    assert isinstance(unknown.exception, RunNotFound)
    assert str(unknown.exception) == f"'c' is not a step of {run}; steps: train/a, train/b"


def test_only_the_last_lines_of_a_log(call: Call, pool: Callable[..., Path]) -> None:
    call("train", "--config", pool(a="seq 5"), "--execute")
    assert call("logs", "pool", "a", "--tail", "2").stdout == "4\n5\n"
    assert call("logs", "pool", "a", "--tail", "9").stdout == "1\n2\n3\n4\n5\n"


def test_cancelling_what_has_ended_stops_nothing(call: Call, run: str) -> None:
    result = call("cancel", run)
    assert "outlived" not in result.stdout
    assert call("status", run).stdout.startswith(f"{run}: ")


def test_the_audit_of_a_sound_journal_and_of_a_changed_one(call: Call, run: str, tmp_path: Path) -> None:
    sound = call("audit", "verify")
    assert sound.exit_code == 0 and sound.stdout.rstrip().endswith(": SOUND")
    told = json.loads(call("audit", "verify", "--json").stdout)
    assert told["faults"] == [] and told["entries"] > 3
    (log,) = (tmp_path / ".modelyard" / "journal").glob("*.jsonl")
    log.write_bytes(log.read_bytes().replace(b'"train"', b'"trian"', 1))
    changed = call("audit", "verify")
    assert changed.exit_code == 1 and changed.stdout.rstrip().endswith(": NOT SOUND") and changed.stderr
    assert json.loads(call("audit", "verify", "--json").stdout)["faults"]
