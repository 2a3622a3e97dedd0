"""Telling somebody: the user's own command, run when something has failed, was trained anew or succeeded.

The command is told what happened by `{run}`, `{step}` and `{state}`, which are plain names, and by
the variables MODELYARD_RUN, _STEP, _STATE and _WHY. It runs beside the yard's work, one notice after
another, for as long as its timeout allows; that it failed is told and changes nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.core.faults import Faults, Section
from modelyard.core.redaction import scrubbed, secret_values
from modelyard.jobs.command import check_command, render_argv, render_shell
from modelyard.jobs.progress import StepProgress, StepStatus

EVENTS = ("failed", "retrained", "succeeded")
#: The step of a notice about the run as a whole.
WHOLE = "run"
_SAID_CHARS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """The command under `notify`."""

    run: str
    shell: bool = False
    on: tuple[str, ...] = ("failed",)
    timeout_s: float = 30.0
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What happened: one of `EVENTS`, of which step, and why."""

    state: str
    step: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """From where the command is run: its folder, what it may name, the environment."""

    run: str
    folder: Path
    values: Mapping[str, object]
    environment: Mapping[str, str] = field(default_factory=dict)


def read_notify(section: Section) -> Notify:
    """Read `notify`; `check_notify` looks at its command."""
    # YAML 1.1 takes a bare `on` for true, and a key is read as text.
    said = {"on" if key == "True" else key: value for key, value in section.data.items()}
    section = Section(said, faults=section.faults, path=section.path)
    on = section.texts("on") or ("failed",)
    for place, event in enumerate(on):
        if event not in EVENTS:
            remedy = f"use some of {', '.join(EVENTS)}"
            section.faults.add(f"{section.key('on')}[{place}]", event, "never happens", remedy)
    notify = Notify(
        run=section.text("run"),
        shell=section.flag("shell", default=False),
        on=on,
        timeout_s=section.number("timeout_s", 30.0, above=0.0, below=3600.0),
        secrets=section.texts("secrets"),
    )
    section.close()
    return notify


def check_notify(notify: Notify, values: Mapping[str, object], faults: Faults) -> None:
    """Note why the command could not be run."""
    known = {**values, "run": "run", "step": "step", "state": "state"}
    if notify.run:
        check_command(notify.run, key="notify.run", shell=notify.shell, known=known, faults=faults)


def check_secrets(notify: Notify, environment: Mapping[str, str], faults: Faults) -> None:
    """Note the secrets that are not set here."""
    for name in notify.secrets:
        if name not in environment:
            faults.add("notify.secrets", name, "is not set", "export the variable first", here=True)


class Notifier:
    """Runs the command for what is asked of it; an observer of the runner. Close it to wait for the last."""

    def __init__(self, notify: Notify | None, caller: Caller) -> None:
        self._notify = notify
        self._caller = caller
        self._thread = ThreadPoolExecutor(max_workers=1)  # starts its thread with the first notice
        self._sent: list[tuple[Notice, Future[str]]] = []
        self._failed: set[tuple[str, int]] = set()
        self.untold: list[tuple[Notice, str]] = []

    def __call__(self, item: StepProgress) -> None:
        """Tell of a step that has failed for good, once."""
        attempt = (item.step.name, len(item.jobs))
        if item.status is StepStatus.FAILED and attempt not in self._failed:
            self._failed.add(attempt)
            self.send(Notice(state="failed", step=item.step.name, why=item.note))

    def send(self, notice: Notice) -> None:
        """Have the command run soon, if it is to be told of this."""
        if self._notify is not None and notice.state in self._notify.on:
            told = self._thread.submit(call, self._notify, notice, self._caller)
            self._sent.append((notice, told))

    def close(self) -> None:
        """Wait for all notices; those that did not get through are then in `untold`, each with why."""
        self._thread.shutdown(wait=True)
        ended = [(notice, told.result()) for notice, told in self._sent]
        self._sent.clear()
        self.untold += [(notice, why) for notice, why in ended if why]


def call(notify: Notify, notice: Notice, caller: Caller) -> str:
    """Run the command for one notice and wait for it; why it failed, or nothing."""
    values = {**caller.values, "run": caller.run, "step": notice.step, "state": notice.state}
    argv = (render_shell if notify.shell else render_argv)(notify.run, values)
    told = {"RUN": caller.run, "STEP": notice.step, "STATE": notice.state, "WHY": notice.why}
    environment = {**caller.environment, **{f"MODELYARD_{name}": text for name, text in told.items()}}
    with tempfile.TemporaryFile() as said:  # no pipe: what it leaves in the background may keep it open
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", argv[0]] if notify.shell else list(argv),
                cwd=caller.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"cannot be started ({error})"
        try:
            status = process.wait(timeout=notify.timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"took longer than {notify.timeout_s:g} s and was ended"
        said.seek(0)
        last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
    if status == 0:
        return ""
    line = scrubbed(last, secret_values(caller.environment, notify.secrets))[:_SAID_CHARS]
    return f"exit status {status}" + (f": {line}" if line else "")
