"""The kill harness: end a command at a failpoint or at an instant, run it again until it is done, and look.

Shared by every capability that promises to survive: give it the command that is to be killed and
resumed and the files that must be valid JSON at every instant; it gives back what happened and
what was left alive. It does not know what the command does.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.core import failpoints
from modelyard.core.processes import kill_marked, marked

#: Every process of a trial carries this mark, wherever it goes.
MARK = "MODELYARD_KILL_TRIAL"
_STDERR_CHARS = 4000
#: Between two looks at the files: often enough to see one half-written, and the trial keeps its core.
_LOOK_S = 0.004


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When and whom to kill: at a failpoint, or after so many seconds the driver or anyone of the trial."""

    failpoint: str = ""
    after_s: float = 0.0
    anyone: bool = False

    def __str__(self) -> str:
        if self.failpoint:
            return self.failpoint
        return f"{'any process' if self.anyone else 'driver'} after {self.after_s:.3f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A command that must survive being killed and run again."""

    argv: Sequence[str]
    cwd: Path
    environment: Mapping[str, str]
    # Files that must be absent or valid JSON whenever they are looked at.
    json_files: Sequence[Path] = ()
    limit_s: float = 120.0
    most_runs: int = 8


@dataclass(slots=True, kw_only=True)
class Survival:
    """What happened in a trial."""

    kill: Kill
    # Exit status of each run of the command; the first is the killed one.
    statuses: list[int] = field(default_factory=list)
    killed: int = 0
    looks: int = 0
    broken_json: list[str] = field(default_factory=list)
    # Processes of the trial that lived on after the last run.
    left_alive: list[int] = field(default_factory=list)
    stderr: str = ""

    @property
    def done(self) -> bool:
        """Whether the command ended with status 0 at last."""
        return bool(self.statuses) and self.statuses[-1] == 0


def survive(trial: Trial, kill: Kill, *, seed: int = 0) -> Survival:
    """Run the command, kill as told, and run it again until it ends with status 0.

    Args:
        trial: The command.
        kill: The one kill of this trial.
        seed: Chooses the victim where anyone may be killed.
    """
    survival = Survival(kill=kill)
    mark = f"{MARK}={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    environment = {**trial.environment, name: value}
    chance = random.Random(seed)
    with _watched(trial.json_files, survival):
        for number in range(trial.most_runs):
            first = number == 0
            extra = {failpoints.VARIABLE: kill.failpoint} if first and kill.failpoint else {}
            status = _run(
                trial, {**environment, **extra}, survival, _Executioner(kill, mark, chance) if first else None
            )
            survival.statuses.append(status)
            if status == 0:
                break
    survival.left_alive = marked(mark)
    kill_marked(mark)
    return survival


def random_kills(count: int, *, within_s: float, seed: int) -> list[Kill]:
    """Kills at random instants, half of the driver and half of anyone."""
    chance = random.Random(seed)
    return [Kill(after_s=chance.uniform(0.0, within_s), anyone=chance.random() < 0.5) for _ in range(count)]


def failpoint_kills(*, later: Sequence[int] = (1, 3), only: Sequence[str] = failpoints.NAMES) -> list[Kill]:
    """Kills at every failpoint, at its first passing and at later ones."""
    return [Kill(failpoint=f"{name}:{count}") for name in only for count in later]


class _Executioner:
    """Kills once, when the time has come."""

    def __init__(self, kill: Kill, mark: str, chance: random.Random) -> None:
        self._kill, self._mark, self._chance = kill, mark, chance
        self._due = time.monotonic() + kill.after_s
        self._ended = bool(kill.failpoint)

    def look(self, driver: int) -> int:
        """Kill if it is time; how many were killed."""
        if self._ended or time.monotonic() < self._due:
            return 0
        self._ended = True
        victims = sorted({driver, *marked(self._mark)}) if self._kill.anyone else [driver]
        try:
            os.kill(self._chance.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            return 0
        return 1


def _run(
    trial: Trial, environment: Mapping[str, str], survival: Survival, executioner: _Executioner | None
) -> int:
    # Not a pipe: whoever outlives the driver may keep it open.
    said = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
    process = subprocess.Popen(
        list(trial.argv),
        cwd=trial.cwd,
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )
    deadline = time.monotonic() + trial.limit_s
    while process.poll() is None:
        if executioner is not None:
            survival.killed += executioner.look(process.pid)
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.002)
    with said:
        said.seek(0)
        survival.stderr = said.read().decode(errors="replace")[-_STDERR_CHARS:]
    if environment.get(failpoints.VARIABLE) and process.returncode != 0:
        survival.killed += 1  # the driver died there, or gave up after its wrappers did
    return process.returncode


@contextmanager
def _watched(files: Sequence[Path], survival: Survival) -> Iterator[None]:
    """Read the files over and over; note whenever one is there and is not JSON."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_LOOK_S):
            for path in files:
                try:
                    json.loads(path.read_bytes())
                    survival.looks += 1
                except FileNotFoundError:
                    continue
                except ValueError as error:
                    survival.broken_json.append(f"{path}: {error}")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
