"""Where every step of a plan stands: the record that the runner keeps and that views are made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from modelyard.core.journal import Entry
from modelyard.jobs.job import Job, JobState, report_from
from modelyard.jobs.plan import Plan
from modelyard.jobs.step import Step, step_digest


class StepStatus(StrEnum):
    """Where a step stands. SKIPPED means that something it needs did not succeed."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def ended(self) -> bool:
        """Whether the step will not run (again) in this invocation."""
        return self not in (StepStatus.WAITING, StepStatus.RUNNING)


@dataclass(slots=True, kw_only=True)
class StepProgress:
    """One step's standing; changed only by the runner."""

    step: Step
    digest: str
    status: StepStatus = StepStatus.WAITING
    jobs: list[Job] = field(default_factory=list)
    note: str = ""
    # How many attempts this invocation has used up, and how many were lost through no fault of theirs.
    tried: int = 0
    lost: int = 0
    # Why its attempt was told to end before the others; empty where it was not.
    ending: str = ""

    @property
    def last(self) -> Job | None:
        """The newest attempt."""
        return self.jobs[-1] if self.jobs else None

    @property
    def invalidated(self) -> bool:
        """Whether its newest attempt succeeded and does not count any more."""
        last = self.last
        succeeded = last is not None and last.state is JobState.SUCCEEDED and last.step_digest == self.digest
        return succeeded and self.status is StepStatus.WAITING


class Progress:
    """The standing of all steps of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._by_name = {
            step.name: StepProgress(step=step, digest=step_digest(step, run_dir=plan.run_dir))
            for step in plan.steps
        }

    def add(self, step: Step) -> StepProgress:
        """Take a step in that the plan does not hold yet; it has no attempts. Its name is new."""
        item = StepProgress(step=step, digest=step_digest(step, run_dir=self.plan.run_dir))
        self._by_name[step.name] = item
        return item

    def drop(self, name: str) -> None:
        """Forget a step that has ended."""
        del self._by_name[name]

    def __getitem__(self, name: str) -> StepProgress:
        return self._by_name[name]

    def __iter__(self) -> Iterator[StepProgress]:
        return iter(self._by_name.values())

    def with_status(self, status: StepStatus) -> list[StepProgress]:
        """The steps that stand so, in plan order."""
        return [item for item in self if item.status is status]

    def replay(self, entries: Iterable[Entry]) -> None:
        """Take over what the journal tells of this run's attempts, and which of them count no more.

        An attempt at a step that has changed since (another digest) is kept for its number only.
        """
        for entry in entries:
            data = entry.data
            item = self._by_name.get(data.get("step", ""))
            if item is None:
                continue
            if entry.kind == "job.intent":
                fields = ("key", "step", "step_digest", "attempt", "backend")
                inputs = data.get("inputs", {})
                item.jobs.append(Job(**{name: data[name] for name in fields}, inputs=inputs))
                item.status = StepStatus.WAITING  # whatever an earlier attempt left: it runs again
            elif entry.kind == "job.finished" and item.jobs:
                self._finish(item, data["key"], data)
            elif entry.kind == "step.invalidated":
                item.status = StepStatus.WAITING

    def open_jobs(self) -> list[tuple[StepProgress, Job]]:
        """Attempts that were announced and of whose end nothing is known."""
        return [(item, item.last) for item in self if item.last is not None and not item.last.state.final]

    @staticmethod
    def _finish(item: StepProgress, key: str, data: Mapping[str, Any]) -> None:
        for index, job in enumerate(item.jobs):
            if job.key == key:
                item.jobs[index] = replace(job, report=report_from(data), native_id=data.get("native_id", ""))
        last = item.jobs[-1]
        if last.step_digest == item.digest and last.state is JobState.SUCCEEDED:
            item.status = StepStatus.SUCCEEDED


def entries_of_run(entries: Iterable[Entry], *, run: str, run_dir: str) -> list[Entry]:
    """The entries of a run since it was last created in its folder; what was there before was set aside."""
    own: list[Entry] = []
    for entry in entries:
        if entry.run != run:
            continue
        if entry.kind == "run.created" and entry.data.get("dir") == run_dir:
            own.clear()
        own.append(entry)
    return own
