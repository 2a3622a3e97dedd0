"""The wrapper as a program of its own: it claims, runs, ends everything, and writes down what happened."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from modelyard.core import processes
from modelyard.jobs import wrapper


@pytest.fixture
def job(tmp_path):
    """Makes a job's folder."""

    def make(script="true", **request):
        folder = tmp_path / "job"
        folder.mkdir(exist_ok=True)
        body = {"argv": [script], "shell": True, "cwd": str(tmp_path), "timeout_s": None, "grace_s": 0.3}
        (folder / "request.json").write_text(json.dumps({**body, **request}))
        return folder

    return make


def start(folder, **environment):
    command = [sys.executable, "-I", "-S", wrapper.__file__, str(folder)]
    return subprocess.Popen(command, env={**os.environ, **environment})


def run(folder):
    with start(folder) as process:
        assert process.wait() == 0
    return json.loads((folder / "exit.json").read_text())


@pytest.mark.parametrize(
    ("script", "code", "reason", "detail"),
    [
        ("true", 0, "exit", ""),
        ("exit 3", 3, "exit", "exit status 3"),
        ("kill -SEGV $$", -11, "signal", "ended by signal 11"),
    ],
)
def test_how_a_command_ended(job, script, code, reason, detail):
    record = run(job(script))
    assert (record["exit_code"], record["reason"], record["detail"]) == (code, reason, detail)
    assert datetime.fromisoformat(record["started_at"]) <= datetime.fromisoformat(record["finished_at"])


def test_what_cannot_start_says_why(job):
    record = run(job(argv=["/no/such/program"], shell=False))
    assert (record["exit_code"], record["reason"]) == (127, "start")
    assert record["detail"] == "could not start: /no/such/program: No such file or directory"
    assert "cpu_s" not in record


def test_a_job_is_taken_once(job, tmp_path):
    folder = job("echo x >> starts; sleep 0.2")
    with start(folder) as one, start(folder) as other:
        statuses = sorted([one.wait(), other.wait()])
    assert statuses == [0, 75]
    assert (tmp_path / "starts").read_text() == "x\n"
    assert not [p for p in folder.iterdir() if p.name.startswith("claim.")]


def test_the_claim_names_the_wrapper_as_processes_does(job, wait_until):
    folder = job("sleep 600")
    with start(folder) as process:
        claim = wait_until(lambda: (folder / "claim").exists() and (folder / "claim").read_text())
        assert claim == processes.identity(process.pid)
        wait_until((folder / "started.json").exists)
        started = json.loads((folder / "started.json").read_text())
        assert started["wrapper"] == claim
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert json.loads((folder / "exit.json").read_text())["reason"] == "cancelled"


def test_used_processor_time_and_memory_are_noted(job):
    code = "x = bytearray(50_000_000); sum(range(3_000_000))"
    record = run(job(argv=[sys.executable, "-c", code], shell=False))
    assert record["cpu_s"] > 0.01
    assert record["max_rss_bytes"] > 50_000_000


def test_the_time_limit_is_noted_with_its_value(job):
    record = run(job("sleep 600", timeout_s=0.1))
    assert (record["reason"], record["detail"]) == ("timeout", "ran longer than 0.1 s")


def test_a_command_that_ignores_the_first_signal_is_killed(job):
    record = run(job("trap '' TERM; while :; do sleep 0.01; done", timeout_s=0.2))
    assert (record["reason"], record["exit_code"]) == ("timeout", -9)


def test_signals_are_not_ignored_by_what_it_starts(job):
    """A command must not inherit what the wrapper or the nursery blocks or ignores."""
    code = (
        "import signal\n"
        "for name in ('SIGTERM', 'SIGINT', 'SIGHUP', 'SIGCHLD', 'SIGPIPE'):\n"
        "    n = getattr(signal, name)\n"
        "    if name not in ('SIGINT', 'SIGPIPE'): assert signal.getsignal(n) == signal.SIG_DFL, name\n"
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), 'blocked'\n"
    )
    record = run(job(argv=[sys.executable, "-c", code], shell=False))
    assert record["exit_code"] == 0


@pytest.mark.parametrize(
    ("place", "left"),
    [
        ("wrapper.before_claim", {"request.json"}),
        ("wrapper.after_claim", {"request.json", "claim"}),
        ("wrapper.before_exit_record", {"request.json", "claim", "started.json"}),
    ],
)
def test_failpoints_leave_what_a_death_there_would(job, place, left):
    folder = job("true")
    with start(folder, MODELYARD_FAILPOINT=place) as process:
        assert process.wait() == -signal.SIGKILL
    told_by_the_command = {"stdout.log", "stderr.log", "heartbeat"}
    assert {p.name for p in folder.iterdir()} - told_by_the_command == left


def test_a_command_ends_with_its_wrapper(job, wait_until, tmp_path):
    if sys.platform != "linux":
        pytest.skip("the kernel ends it on Linux only")
    folder = job("echo $$ > pid; exec sleep 600")
    with start(folder) as process:
        wait_until((folder / "started.json").exists)
        pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        process.kill()
        process.wait()
    wait_until(lambda: not processes.started_ticks(pid))


def test_it_imports_only_what_the_bare_interpreter_has():
    tree = ast.parse(Path(wrapper.__file__).read_text())
    imported = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - {"__future__", "typing"} <= {
        "ctypes", "json", "os", "select", "signal", "sys", "time",
    }  # fmt: skip


def test_its_stamp_is_read_as_ours_is():
    moment = datetime.fromisoformat(wrapper.stamp())
    assert moment.utcoffset().total_seconds() == 0
    assert len(wrapper.stamp()) == len("2024-05-01T10:30:00.000000+00:00")
