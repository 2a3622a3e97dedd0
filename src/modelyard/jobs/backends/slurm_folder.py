"""A job's folder as Slurm's backend keeps it, beside the wrapper's own records.

    submission.json  under which name the job is submitted, and by which process, before it is
    slurm.json       the number that Slurm gave, once it did
    job.sh           the script
    allocation       written by the script: number, restarts, node
    cancelled        the job is to end; the script heeds it too, should it start late
    slurm.out        what the script and Slurm's step daemon said
    verdict.json     the final report, where it took Slurm's word; the first one written stands

The wrapper's `claim` is taken by one process only. Whoever gives a job up without a record of its end
takes the claim first: the job can then not start behind his back, wherever it was on its way.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.core.clock import stamp, utc_now
from modelyard.core.files import read_json, write_json, write_whole
from modelyard.core.processes import identity, is_alive
from modelyard.jobs.backends.analysis import last_lines
from modelyard.jobs.backends.local import exit_report, started_at_of
from modelyard.jobs.job import Report, report_from, report_record
from modelyard.jobs.step import Resources

#: After this a submission by a process of another machine counts as interrupted.
_ELSEWHERE_S = 300.0
_WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Under which name a job is submitted: its key, or an array's name and the element in it."""

    name: str
    index: int | None = None
    resources: Mapping[str, Any]
    # Full name of the submitting process, its machine, and when it began.
    owner: str
    host: str
    at: str

    @property
    def interrupted(self) -> bool:
        """Whether the process that was to submit it has ended."""
        if self.host == socket.gethostname():
            return not is_alive(self.owner)
        return (utc_now() - datetime.fromisoformat(self.at)).total_seconds() > _ELSEWHERE_S


def submission_now(name: str, index: int | None, resources: Resources) -> Submission:
    """The announcement of this process at this moment."""
    needs = {field: getattr(resources, field) for field in Resources.__dataclass_fields__}
    return Submission(
        name=name,
        index=index,
        resources=needs,
        owner=identity(os.getpid()),
        host=socket.gethostname(),
        at=stamp(utc_now()),
    )


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Reads and writes one job's folder."""

    path: Path

    def announce(self, submission: Submission) -> bool:
        """Note that this process submits the job; False where another has said so already."""
        draft = self.path / f".submission.{uuid.uuid4().hex[:12]}"
        write_json(draft, asdict(submission), durable=False)
        try:
            os.link(draft, self.path / "submission.json")
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def announce_anew(self, submission: Submission) -> None:
        """Take over from a process that ended, or name the array that the job goes with."""
        write_json(self.path / "submission.json", asdict(submission), durable=False)

    def retract(self) -> None:
        """The job was refused and has not been submitted."""
        (self.path / "submission.json").unlink(missing_ok=True)

    def submission(self) -> Submission | None:
        """The announcement; None before there is one."""
        try:
            return Submission(**read_json(self.path / "submission.json"))
        except FileNotFoundError:
            return None

    def give_number(self, job_id: str) -> None:
        """Note the number that Slurm gave."""
        write_json(self.path / "slurm.json", {"job_id": job_id}, durable=False)

    def number(self) -> str:
        """The number of the job; empty where it is not known."""
        try:
            return str(read_json(self.path / "slurm.json")["job_id"])
        except FileNotFoundError:
            return ""

    def allocated(self) -> str:
        """The number under which the script ran; of an array's element it is one of its own."""
        try:
            return (self.path / "allocation").read_text().partition(" ")[0]
        except FileNotFoundError:
            return ""

    # -- ends ------------------------------------------------------------------------------------------

    def claimed(self) -> bool:
        """Whether a wrapper has taken the job."""
        try:
            return (self.path / "claim").read_text() != _WITHDRAWN
        except FileNotFoundError:
            return False

    def withdraw(self) -> bool:
        """Take the claim ourselves, so that no wrapper can; False where one has it."""
        draft = self.path / f".claim.{uuid.uuid4().hex[:12]}"
        draft.write_text(_WITHDRAWN)
        try:
            os.link(draft, self.path / "claim")
        except FileExistsError:
            return not self.claimed()
        finally:
            draft.unlink()
        return True

    def ask_to_end(self) -> None:
        """Note that the job is to end, so that it holds whoever is told of it and however late."""
        if not self.asked_to_end():
            write_whole(self.path / "cancelled", stamp(utc_now()) + "\n", durable=False)

    def asked_to_end(self) -> bool:
        """Whether the job is to end."""
        return (self.path / "cancelled").exists()

    def record(self) -> Report | None:
        """The wrapper's own record of the end."""
        return exit_report(self.path)

    def started_at(self) -> str | None:
        """When the command started; None until then."""
        return started_at_of(self.path)

    def verdict(self) -> Report | None:
        """The final report that took Slurm's word."""
        try:
            return report_from(read_json(self.path / "verdict.json")["report"])
        except FileNotFoundError:
            return None

    def state(self) -> str:
        """Slurm's state at the verdict; empty where none was needed or known."""
        try:
            return str(read_json(self.path / "verdict.json")["state"])
        except FileNotFoundError:
            return ""

    def conclude(self, report: Report, state: str) -> Report:
        """Write the verdict down; where another process was first, its verdict stands."""
        draft = self.path / f".verdict.{uuid.uuid4().hex[:12]}"
        write_json(draft, {"report": report_record(report), "state": state}, durable=False)
        try:
            os.link(draft, self.path / "verdict.json")
        except FileExistsError:
            return self.verdict() or report
        finally:
            draft.unlink()
        return report

    # -- what was said ---------------------------------------------------------------------------------

    def log(self, stream: str) -> Path:
        """The file of `stdout` or `stderr`."""
        return self.path / f"{stream}.log"

    def outputs(self, array_output: Callable[[str, int], Path]) -> list[Path]:
        """The files in which the script and Slurm's step daemon spoke."""
        submission = self.submission()
        if submission is None or submission.index is None:
            return [self.path / "slurm.out"]
        return [array_output(submission.name, submission.index), self.path / "slurm.out"]

    def said(self, array_output: Callable[[str, int], Path]) -> list[str]:
        """The last lines of those files."""
        return [line for path in self.outputs(array_output) for line in last_lines(path)]


class Stillness:
    """How long a file's time has stood still by our own clock, which need not be that of its writer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[object, float]] = {}

    def of(self, name: str, value: object) -> float:
        """Seconds since the value under this name was first seen as it is."""
        now = self._clock()
        known, since = self._seen.get(name, (self, now))
        if known != value:
            known, since = value, now
        self._seen[name] = (known, since)
        return now - since

    def forget(self, name: str) -> None:
        """The name is not asked for again."""
        self._seen.pop(name, None)


def beat(folder: Path) -> int:
    """The time of the wrapper's last heartbeat, as its file says; 0 where there is none."""
    try:
        return (folder / "heartbeat").stat().st_mtime_ns
    except FileNotFoundError:
        return 0
