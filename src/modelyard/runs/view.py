"""What people look at: where a run stands and when it may end, read from its files and the journal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard.core.errors import RunNotFound
from modelyard.core.files import read_json
from modelyard.core.journal import Journal
from modelyard.jobs.progress import Progress, StepProgress, StepStatus, entries_of_run
from modelyard.runs.directory import RunDirectory, is_driven, open_run
from modelyard.runs.index import Index, RunRow
from modelyard.runs.yard import Yard


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """One step of a run."""

    name: str
    status: str
    attempts: int
    started_at: str | None
    seconds: float | None
    cpu_s: float | None
    note: str
    folder: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run. `state` is running, interrupted, planned or how the run ended last."""

    run: str
    kind: str
    source: str
    dir: str
    state: str
    done: int
    total: int
    # Seconds until the end, from the steps that ended; None before any has.
    left_s: float | None
    steps: tuple[StepView, ...]

    def record(self) -> dict[str, Any]:
        """The view as a JSON value."""
        return asdict(self)


def find_run(yard: Yard, name: str | None) -> RunRow:
    """A run by its name, by the beginning of it, or the newest one. Raises `RunNotFound`."""
    rows = Index(yard.index_path, yard.journal).runs()
    if name is None:
        if not rows:
            raise RunNotFound(f"{yard.root}: has no run yet; start one with `modelyard up`")
        return rows[-1]
    exact = [row for row in rows if row.run == name]
    close = exact or [row for row in rows if row.run.startswith(name)]
    if len(close) != 1:
        known = ", ".join(row.run for row in rows[-8:]) or "none"
        problem = "is not a run" if not close else "could be several runs"
        raise RunNotFound(f"{name!r} {problem} of {yard.root}; runs: {known}")
    return close[0]


def view_run(yard: Yard, row: RunRow, *, now: datetime | None = None) -> RunView:
    """Where a run stands at this moment."""
    directory = open_run(Path(row.dir))
    progress = replayed(directory, yard.journal)
    now = now or datetime.now(UTC)
    steps = [_step_view(item, directory, now) for item in progress]
    done = sum(1 for step in steps if step.status not in (StepStatus.WAITING, StepStatus.RUNNING))
    driven = is_driven(directory.path)
    return RunView(
        run=row.run,
        kind=row.kind,
        source=row.source,
        dir=row.dir,
        state=_state(row, steps, driven=driven),
        done=done,
        total=len(steps),
        left_s=estimate_left_s(steps) if driven else None,
        steps=tuple(steps),
    )


def replayed(directory: RunDirectory, journal: Journal) -> Progress:
    """The standing of all steps, from the journal alone."""
    plan = directory.plan()
    progress, steps = Progress(plan), {step.name for step in plan.steps}
    for entry in entries_of_run(journal.read(), run=directory.record.run, run_dir=plan.run_dir):
        if entry.data.get("step", "") not in steps and entry.kind.startswith("step."):
            continue  # of a trial that is not in the plan any more
        progress.replay([entry])
        if entry.kind == "step.skipped":
            item = progress[entry.data["step"]]
            item.status, item.note = StepStatus.SKIPPED, entry.data["why"]
        elif entry.kind == "run.started":
            for item in progress.with_status(StepStatus.SKIPPED):
                item.status, item.note = StepStatus.WAITING, ""
    return progress


def estimate_left_s(steps: Sequence[StepView]) -> float | None:
    """Seconds until the last step ends.

    A step is expected to take the median time of the ended steps of its kind (the part of its name
    before the slash), else of all; what is left is shared by as many as run now.
    """
    ended = [s for s in steps if s.seconds is not None and s.status == StepStatus.SUCCEEDED]
    if not ended:
        return None
    overall = statistics.median(s.seconds or 0.0 for s in ended)
    by_kind: dict[str, list[float]] = {}
    for step in ended:
        by_kind.setdefault(_kind(step), []).append(step.seconds or 0.0)
    left, longest, running = 0.0, 0.0, 0
    for step in steps:
        expected = statistics.median(by_kind.get(_kind(step), [overall]))
        if step.status == StepStatus.RUNNING:
            running += 1
            rest = max(0.0, expected - (step.seconds or 0.0))
            left, longest = left + rest, max(longest, rest)
        elif step.status == StepStatus.WAITING:
            left += expected
    return max(longest, left / max(1, running))


def _kind(step: StepView) -> str:
    return step.name.partition("/")[0]


def _step_view(item: StepProgress, directory: RunDirectory, now: datetime) -> StepView:
    job = item.last
    if job is None:
        return StepView(
            name=item.step.name,
            status=item.status.value,
            attempts=0,
            started_at=None,
            seconds=None,
            cpu_s=None,
            note=item.note,
            folder=None,
        )
    folder = directory.jobs_dir / job.key
    status, started, seconds = item.status, job.report.started_at, None
    if not job.state.final:
        status, started = StepStatus.RUNNING, _started(folder)
    elif item.status is StepStatus.WAITING:
        status = {
            "CANCELLED": StepStatus.CANCELLED,
            "FAILED": StepStatus.FAILED,
            "LOST": StepStatus.FAILED,
        }.get(job.state.value, item.status)
    if started is not None:
        ended = datetime.fromisoformat(job.report.finished_at) if job.report.finished_at else now
        seconds = max(0.0, (ended - datetime.fromisoformat(started)).total_seconds())
    return StepView(
        name=item.step.name,
        status=status.value,
        attempts=len(item.jobs),
        started_at=started,
        seconds=seconds,
        cpu_s=job.report.cpu_s,
        note=item.note or ("" if status is StepStatus.SUCCEEDED else job.report.detail),
        folder=str(folder),
    )


def _started(folder: Path) -> str | None:
    try:
        return str(read_json(folder / "started.json")["started_at"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _state(row: RunRow, steps: Sequence[StepView], *, driven: bool) -> str:
    if driven:
        return "running"
    if any(step.status == StepStatus.RUNNING for step in steps):
        return "interrupted"
    return row.outcome or "planned"
