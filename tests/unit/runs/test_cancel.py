"""Cancelling from another process: nothing is alive afterwards, driver or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from modelyard.core.errors import RunBusy
from modelyard.core.processes import started_ticks
from modelyard.runs.cancel import cancel_run
from modelyard.runs.directory import drive, is_driven
from modelyard.runs.execution import open_backend

WAIT = "echo $$ > pid; while [ ! -e go ]; do sleep 0.01; done"
DRIVER = """
import os, sys
from pathlib import Path
from modelyard.runs.directory import open_run
from modelyard.runs.execution import ExecutionOptions, execute
from modelyard.runs.yard import open_yard
directory = open_run(Path(sys.argv[2]))
outcome, _ = execute(open_yard(Path(sys.argv[1]), create=False), directory, directory.plan(),
                     ExecutionOptions(slots=2, environment=dict(os.environ)))
print(outcome.value)
"""


@pytest.fixture
def driven(make_run, make_step, yard, tmp_path, wait_until):
    """A run that another process drives, whose one job runs."""
    directory = make_run(make_step("a", WAIT))
    command = [sys.executable, "-c", DRIVER, str(yard.root), str(directory.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        pid = wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        yield directory, driver, int(pid)
        driver.kill()


def opener(options, directory):
    return lambda: open_backend(options, directory.jobs_dir)


def test_a_driver_is_asked_to_stop(driven, yard, options):
    directory, driver, pid = driven
    assert cancel_run(yard, directory, opener(options, directory)) == 0
    assert driver.wait() == 0
    assert driver.stdout.read() == "cancelled\n"
    assert not started_ticks(pid)
    assert not is_driven(directory.path)


def test_without_a_driver_the_jobs_are_stopped_here(driven, yard, options, carry_out, tmp_path):
    directory, driver, pid = driven
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert started_ticks(pid)  # it outlived its driver
    assert cancel_run(yard, directory, opener(options, directory)) == 1
    assert not started_ticks(pid)
    finished = [e.data for e in yard.journal.read() if e.kind == "job.finished"]
    assert [(d["step"], d["state"]) for d in finished] == [("a", "CANCELLED")]
    assert list(yard.journal.read())[-1].data["outcome"] == "cancelled"
    assert cancel_run(yard, directory, opener(options, directory)) == 0
    (tmp_path / "go").touch()
    assert carry_out(directory)[0] == "succeeded"


def test_a_driver_that_does_not_listen_is_an_error(make_run, make_step, yard, options):
    directory = make_run(make_step("a"))
    with drive(directory), pytest.raises(RunBusy, match="did not stop within"):
        cancel_run(yard, directory, opener(options, directory), patience_s=0.2)


def test_a_run_that_has_ended_has_nothing_to_stop(make_run, make_step, yard, options, carry_out):
    directory = make_run(make_step("a"))
    carry_out(directory)
    before = len(list(yard.journal.read()))
    assert cancel_run(yard, directory, opener(options, directory)) == 0
    assert len(list(yard.journal.read())) == before
    assert os.getpid()
