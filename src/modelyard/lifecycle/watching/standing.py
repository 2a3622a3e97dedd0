"""Where a watched run stands, by its journal: what counts, what is lost, what is older than its sources."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.journal import Draft, Entry
from modelyard.jobs.job import JobState
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus, entries_of_run
from modelyard.lifecycle.up import Prepared
from modelyard.lifecycle.watching.causes import ASKED, Ask, Asks, Cause, Look, Seen, look, read_asks
from modelyard.runs.directory import RunDirectory
from modelyard.runs.execution import ExecutionOptions, Observer
from modelyard.runs.view import replayed
from modelyard.runs.yard import Yard

#: Losses that the runner makes good without counting them.
_LOST_LIMIT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What every round works on."""

    yard: Yard
    prepared: Prepared
    options: ExecutionOptions
    observers: Sequence[Observer] = ()
    clock: Clock = utc_now


class Standing:
    """What the journal says of the run now."""

    def __init__(self, scene: Scene, directory: RunDirectory) -> None:
        self._scene = scene
        self.now: datetime = scene.clock()
        plan = scene.prepared.plan
        journal = scene.yard.journal
        self.progress: Progress = replayed(directory, journal)
        self.entries: list[Entry] = entries_of_run(
            journal.read(), run=scene.prepared.run, run_dir=plan.run_dir
        )
        self.asks: Asks = read_asks(self.entries)

    @property
    def finished(self) -> bool:
        """Whether there is a policy and all that hangs on it."""
        return all(item.status is StepStatus.SUCCEEDED for item in self.progress if is_pool(item))

    def look(self) -> Look:
        """What there is to do."""
        seen = Seen(progress=self.progress, asks=self.asks, now=self.now)
        return look(self._scene.prepared.declaration, seen)

    def ask(self, causes: tuple[Cause, ...]) -> Ask:
        """Put causes on record, with the versions to fall back on."""
        counting = [item for item in self.progress if item.status is StepStatus.SUCCEEDED]
        ask = Ask(
            number=len(self.asks.all) + 1,
            at=stamp(self.now),
            causes=causes,
            attempts={item.step.name: len(item.jobs) for item in counting},
        )
        data = {
            "ask": ask.number,
            "at": ask.at,
            "causes": [asdict(cause) for cause in causes],
            "attempts": dict(ask.attempts),
        }
        run = self._scene.prepared.run
        drafts = [Draft(kind=ASKED, run=run, data=data)]
        drafts += [
            Draft(kind="step.invalidated", run=run, data={"step": cause.step, "why": cause.why})
            for cause in forced(ask)
        ]
        self._scene.yard.journal.append(drafts)
        return ask


def forced(ask: Ask) -> list[Cause]:
    """Causes that the runner cannot see by itself."""
    return [cause for cause in ask.causes if cause.kind != "data"]


def is_pool(item: StepProgress) -> bool:
    """Whether a step is one of our own makers: neither a member's nor a preparation."""
    return "/" not in item.step.name


def lost_steps(plan: Plan, progress: Progress, ask: Ask) -> set[str]:
    """Steps that have used up their attempts since they were asked for, and those that need them."""
    lost: set[str] = set()
    for step in plan.steps:
        item = progress[step.name]
        if _spent(item, ask.attempts.get(step.name, 0)) or lost.intersection(step.needs):
            lost.add(step.name)
    return lost


def _spent(item: StepProgress, before: int) -> bool:
    fresh = item.jobs[before:]
    if not before or not fresh or fresh[-1].state not in (JobState.FAILED, JobState.LOST):
        return False
    failed = sum(job.state is JobState.FAILED for job in fresh)
    lost = sum(job.state is JobState.LOST for job in fresh)
    unclear = fresh[-1].report.reason == "unclear"
    return unclear or failed + max(0, lost - _LOST_LIMIT) > item.step.retries


def outdated(entries: Iterable[Entry]) -> bool:
    """Whether a forecast was made after the tables were last begun."""
    newer = False
    for entry in entries:
        step = entry.data.get("step", "")
        if entry.kind == "job.intent" and step == "collect":
            newer = False
        elif entry.kind == "job.finished" and step.startswith("predict/"):
            made = entry.data["state"] == JobState.SUCCEEDED.value
            newer = newer or (made and entry.data["reason"] != "restored")
    return newer
