"""The nursery: wrappers outlive it, and a dead one is replaced."""

from __future__ import annotations

import json
import os
import signal

import pytest

from modelyard.core.processes import started_ticks
from modelyard.jobs.backends.nursery import Nursery


@pytest.fixture
def nursery():
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def job(tmp_path):
    """Makes a job's folder with the request of a shell script."""

    def make(name, script):
        folder = tmp_path / name
        folder.mkdir()
        request = {"argv": [script], "shell": True, "cwd": str(tmp_path), "timeout_s": None, "grace_s": 0.5}
        (folder / "request.json").write_text(json.dumps(request))
        return folder

    return make


def test_a_launch_gives_the_pid_of_a_wrapper_that_runs_the_job(nursery, job, wait_until):
    folder = job("one", 'printf "%s" "$WORD"')
    pid = nursery.launch(str(folder), {**os.environ, "WORD": "a b"})
    wait_until((folder / "exit.json").exists)
    assert (folder / "stdout.log").read_text() == "a b"
    assert (folder / "claim").read_text().startswith(f"{pid}:")
    wait_until(lambda: not started_ticks(pid))


def test_wrappers_go_on_when_it_ends(nursery, job, wait_until, tmp_path):
    folder = job("one", "while [ ! -e go ]; do sleep 0.01; done")
    pid = nursery.launch(str(folder), dict(os.environ))
    wait_until((folder / "started.json").exists)
    nursery.close()
    assert started_ticks(pid)
    (tmp_path / "go").touch()
    wait_until((folder / "exit.json").exists)


def test_a_nursery_that_was_killed_is_replaced(nursery, job, wait_until):
    first = job("first", "true")
    nursery.launch(str(first), dict(os.environ))
    wait_until((first / "exit.json").exists)
    process = nursery._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    second = job("second", "true")
    nursery.launch(str(second), dict(os.environ))
    wait_until((second / "exit.json").exists)


def test_closing_twice_is_closing_once(nursery, job):
    nursery.close()
    nursery.launch(str(job("one", "true")), dict(os.environ))
    nursery.close()
    nursery.close()


def test_environments_of_any_size_and_content_arrive(nursery, job, wait_until):
    folder = job("one", 'printf "%s" "$LONG" | wc -c; printf "%s" "$ODD"')
    odd = "é\n'\"$x"
    nursery.launch(str(folder), {**os.environ, "LONG": "x" * 100_000, "ODD": odd})
    wait_until((folder / "exit.json").exists)
    assert (folder / "stdout.log").read_text() == f"100000\n{odd}"
