"""A bench for the contract of backends: settings that its tests count on, steps, and waiting.

A wait ends when what it waits for holds, and fails only after a generous deadline.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from modelyard.core.processes import started_ticks
from modelyard.jobs.backend import Backend, BackendSettings
from modelyard.jobs.job import Report, job_key
from modelyard.jobs.step import Step

#: What a backend under this contract is opened with.
SLOTS = 2
GPUS = ("0", "1", "2")
GRACE_S = 0.5
SECRET_NAME, SECRET_VALUE = "CONTRACT_WORD", "xyzzy-7f3a-contract"

DEADLINE_S = 60.0
T = TypeVar("T")

#: A command that nothing but SIGKILL ends, with a child that left its session and a grandchild of that.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def note(name):
    with open(os.path.join(sys.argv[1], name + ".tmp"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(os.path.join(sys.argv[1], name + ".tmp"), os.path.join(sys.argv[1], name))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note("grandchild.pid")
    else:
        note("child.pid")
else:
    note("command.pid")
time.sleep(600)
"""


def contract_settings(jobs_dir: Path) -> BackendSettings:
    """The settings that the contract's tests count on."""
    environment = {**os.environ, SECRET_NAME: SECRET_VALUE}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return BackendSettings(
        jobs_dir=jobs_dir, environment=environment, slots=SLOTS, gpus=GPUS, grace_s=GRACE_S
    )


def wait_until(condition: Callable[[], T], *, what: str) -> T:
    """Wait for a condition and give what it gave; fail after a long time."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {DEADLINE_S:g} s for {what}")
        time.sleep(0.01)
    return value


def settle(backend: Backend, native_ids: Sequence[str]) -> Mapping[str, Report]:
    """Wait until every job has ended, and give the reports."""

    def final() -> Mapping[str, Report] | None:
        reports = backend.poll(native_ids)
        if all(report.state.final for report in reports.values()):
            return reports
        backend.wait(0.05)
        return None

    return wait_until(final, what=f"the end of {len(native_ids)} jobs") or {}


def is_gone(pid: int) -> bool:
    """Whether no process has this number any more (a zombie is gone)."""
    return not started_ticks(pid)


def lines_of(path: Path) -> list[str]:
    """The lines of a file that a job may not have written yet."""
    return path.read_text().splitlines() if path.exists() else []


class Bench:
    """One test's steps and jobs: names keys, and stops what a failed test left running."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend = backend
        self.folder = folder
        self._numbers = itertools.count()
        self._submitted: list[str] = []

    def step(self, script: str = "true", **fields: Any) -> Step:
        """A step of one shell script, or of the given `argv`."""
        command = {} if "argv" in fields else {"argv": (script,), "shell": True}
        return Step(**{"name": f"step-{next(self._numbers)}", "cwd": str(self.folder), **command, **fields})

    def python(self, code: str, *words: str, **fields: Any) -> Step:
        """A step of a Python program."""
        return self.step(argv=(sys.executable, "-c", code, *words), **fields)

    def key(self, step: Step, attempt: int = 1) -> str:
        """The key of an attempt in this test."""
        return job_key(
            yard=str(self.folder), run="contract", step=step.name, step_digest="-", attempt=attempt
        )

    def submit(self, step: Step, *, backend: Backend | None = None) -> str:
        """Submit a step under its key."""
        native_id = (backend or self.backend).submit(step, self.key(step))
        self._submitted.append(native_id)
        return native_id

    def run(self, step: Step) -> tuple[str, Report]:
        """Submit a step and wait for its end."""
        native_id = self.submit(step)
        return native_id, settle(self.backend, [native_id])[native_id]

    def output(self, native_id: str, stream: str = "stdout") -> str:
        """All that a job has written so far."""
        return self.backend.logs(native_id, stream)[0].decode()

    def end(self) -> None:
        """Stop whatever still runs."""
        running = [i for i, r in self.backend.poll(self._submitted).items() if not r.state.final]
        if running:
            self.backend.cancel(running)
            settle(self.backend, running)


def fork(action: Callable[[], object]) -> int:
    """Another process that does one thing and ends without the tests' own clean-up."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return pid
