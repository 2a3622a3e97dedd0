"""What Slurm's words mean: the table of states, rows of its queue and accounting, and the verdict on a job.

Pure. A job's end is told by two witnesses. The wrapper's exit record says how the command ended; Slurm
says who ended it. Where only Slurm speaks, its state decides; where both do, Slurm's word counts for the
ends that it makes itself: a time limit, a preemption, the loss of a node, a lack of memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from modelyard.jobs.job import JobState, Report


class Meaning(StrEnum):
    """What a state of Slurm means for a job."""

    WAITS = "waits"
    RUNS = "runs"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    # It ended by no fault of its own; another attempt makes sense.
    TAKEN = "taken"


#: Every state of `squeue -o %T` and `sacct -o State`. A state that is not here is taken to go on.
MEANINGS = {
    "PENDING": Meaning.WAITS,
    "REQUEUED": Meaning.WAITS,
    "REQUEUE_FED": Meaning.WAITS,
    "REQUEUE_HOLD": Meaning.WAITS,
    "RESV_DEL_HOLD": Meaning.WAITS,
    "SPECIAL_EXIT": Meaning.WAITS,
    "CONFIGURING": Meaning.WAITS,
    "RUNNING": Meaning.RUNS,
    "COMPLETING": Meaning.RUNS,
    "RESIZING": Meaning.RUNS,
    "SIGNALING": Meaning.RUNS,
    "STAGE_OUT": Meaning.RUNS,
    "STOPPED": Meaning.RUNS,
    "SUSPENDED": Meaning.RUNS,
    "COMPLETED": Meaning.DONE,
    "FAILED": Meaning.FAILED,
    "CANCELLED": Meaning.CANCELLED,
    "DEADLINE": Meaning.TIMEOUT,
    "TIMEOUT": Meaning.TIMEOUT,
    "OUT_OF_MEMORY": Meaning.MEMORY,
    "BOOT_FAIL": Meaning.TAKEN,
    "LAUNCH_FAILED": Meaning.TAKEN,
    "NODE_FAIL": Meaning.TAKEN,
    "PREEMPTED": Meaning.TAKEN,
    "RECONFIG_FAIL": Meaning.TAKEN,
    "REVOKED": Meaning.TAKEN,
}

#: What a step daemon writes into the job's output when it ends the job, for where nothing else is kept.
_SAID = re.compile(r"\*\*\* (?:JOB|STEP) .* CANCELLED AT \S+(?: DUE TO (?P<why>[A-Z ]+))?.* \*\*\*")
_WHY = {
    "TIME LIMIT": "TIMEOUT",
    "PREEMPTION": "PREEMPTED",
    "NODE FAILURE": "NODE_FAIL",
    "NODE FAILED": "NODE_FAIL",
    "JOB NOT RUNNING": "NODE_FAIL",
    "": "CANCELLED",
}
_ENDED_BY_SIGNAL = (-15, -9)
_SENTENCES = {
    "TIMEOUT": "ran into Slurm's time limit",
    "DEADLINE": "could not end before its deadline",
    "PREEMPTED": "was preempted for another job",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "got a node that did not start",
    "OUT_OF_MEMORY": "used more memory than it had asked for",
    "REVOKED": "was taken over by another cluster",
    "CANCELLED": "was cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job as Slurm tells of it."""

    # As scancel takes it: 12, or 12_3 for an element of an array.
    job_id: str
    name: str
    state: str
    # Where it runs or ran; empty where it never had a node.
    nodes: str = ""
    reason: str = ""

    @property
    def index(self) -> int | None:
        """The number of an array's element; None for a job of its own."""
        _, _, index = self.job_id.partition("_")
        return int(index) if index.isdigit() else None

    @property
    def meaning(self) -> Meaning:
        """What its state means."""
        return MEANINGS.get(self.state, Meaning.RUNS)

    @property
    def live(self) -> bool:
        """Whether Slurm still has to do with it."""
        return self.meaning in (Meaning.WAITS, Meaning.RUNS)


#: The columns that `rows_of_queue` reads.
QUEUE_FORMAT = "%i|%T|%N|%r|%j"
#: The columns that `rows_of_accounting` reads.
ACCOUNTING_FORMAT = "JobID,State,NodeList,JobName"


def rows_of_queue(answer: str) -> list[Row]:
    """The rows of `squeue -h -r -o QUEUE_FORMAT`; the name comes last, for it may hold anything."""
    rows = []
    for line in answer.splitlines():
        job_id, state, nodes, reason, name = [*line.split("|", 4), "", "", "", ""][:5]
        rows.append(Row(job_id=job_id, name=name, state=state, nodes=nodes, reason=reason))
    return rows


def rows_of_accounting(answer: str) -> list[Row]:
    """The rows of `sacct -n -P -o ACCOUNTING_FORMAT`; `CANCELLED by 0` is CANCELLED."""
    rows = []
    for line in answer.splitlines():
        job_id, state, nodes, name = [*line.split("|", 3), "", "", ""][:4]
        where = "" if nodes in ("None assigned", "(null)") else nodes
        rows.append(Row(job_id=job_id, name=name, state=state.partition(" ")[0].rstrip("+"), nodes=where))
    return rows


def rows_for(rows: Iterable[Row], name: str, index: int | None) -> list[Row]:
    """The rows of one job: by name, for a number may be given out again when the scheduler lost its state."""
    return [row for row in rows if row.name == name and row.index == index]


def unknown(name: str) -> Row:
    """The row of a job of which Slurm knows nothing."""
    return Row(job_id="", name=name, state="")


def state_said(lines: Sequence[str]) -> str:
    """The state that a job's own output tells of; empty where it tells none."""
    for line in reversed(lines):
        said = _SAID.search(line)
        if said:
            return _WHY.get((said["why"] or "").strip(), "")
        if "oom-kill event" in line or "oom_kill event" in line:
            return "OUT_OF_MEMORY"
    return ""


def is_clear(report: Report) -> bool:
    """Whether a wrapper's record needs no word of Slurm: it was not a signal from outside that ended it."""
    ended_from_outside = report.reason == "signal" and report.exit_code in _ENDED_BY_SIGNAL
    return report.reason != "cancelled" and not ended_from_outside


def joined(report: Report, state: str, *, asked: bool) -> Report:
    """The wrapper's record with what Slurm says of the end.

    Args:
        report: What the wrapper wrote.
        state: Slurm's final state; empty where nobody knows it.
        asked: Whether we had asked for the end.
    """
    if asked:
        return replace(report, state=JobState.CANCELLED, reason="cancelled", detail="stopped on request")
    meaning, detail = MEANINGS.get(state), sentence(state)
    if meaning is Meaning.TIMEOUT:
        return replace(report, state=JobState.FAILED, reason="timeout", detail=detail)
    if meaning is Meaning.MEMORY and report.state is not JobState.SUCCEEDED:
        return replace(report, state=JobState.FAILED, reason="signal", detail=detail)
    if meaning is Meaning.CANCELLED:
        return replace(report, state=JobState.CANCELLED, reason="cancelled", detail=detail)
    if meaning is Meaning.TAKEN or (not state and report.reason == "cancelled"):
        return replace(report, state=JobState.LOST, reason="lost", detail=detail)
    return report


def unrecorded(row: Row, *, asked: bool, claimed: bool, said: str) -> Report:
    """The report of a job that ended without the wrapper's record.

    Args:
        row: What Slurm knows of its end; the state is empty where it knows nothing.
        asked: Whether we had asked for the end.
        claimed: Whether the wrapper had begun.
        said: The last sign of the script: a line of its output, or that it ran; empty where it gave none.
    """
    meaning, detail = MEANINGS.get(row.state), sentence(row.state)
    if asked:
        return Report(state=JobState.CANCELLED, reason="cancelled", detail="stopped on request")
    if not claimed and not said and row.nodes and meaning in (Meaning.FAILED, Meaning.CANCELLED):
        # A node that cannot start a job cancels it in the name of the system.
        return Report(state=JobState.LOST, reason="lost", detail=f"could not be started on {row.nodes}")
    if meaning is Meaning.CANCELLED:
        return Report(state=JobState.CANCELLED, reason="cancelled", detail=detail)
    if meaning is Meaning.TIMEOUT:
        return Report(state=JobState.FAILED, reason="timeout", detail=detail)
    if meaning is Meaning.MEMORY:
        return Report(state=JobState.FAILED, reason="signal", detail=detail)
    if meaning is Meaning.FAILED and not claimed:
        detail = f"its script ended before the command began: {said}"
        return Report(state=JobState.FAILED, reason="start", detail=detail)
    if meaning in (Meaning.DONE, Meaning.FAILED):
        detail = "its wrapper was killed" if claimed else "ended without a trace in its folder"
    return Report(state=JobState.LOST, reason="lost", detail=detail)


def sentence(state: str) -> str:
    """What Slurm's final state says, for a person."""
    if not state:
        return "Slurm does not know the job any more"
    return f"{_SENTENCES.get(state, 'ended')} ({state})"
