"""What a round found is carried out: the members first, the pool after them, and back where that fails.

Each part begins from what the journal says, so what was killed anywhere is carried out by whoever looks next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelyard.core.failpoints import failpoint
from modelyard.core.journal import Draft
from modelyard.jobs.job import Job, JobState
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus
from modelyard.jobs.runner import RunName
from modelyard.lifecycle.notices import WHOLE, Notice, Notifier
from modelyard.lifecycle.up import UpResult, drive_plan
from modelyard.lifecycle.watching.causes import ENDED, Ask, Cause
from modelyard.lifecycle.watching.standing import Scene, Standing, forced, is_pool, lost_steps, outdated
from modelyard.lifecycle.watching.versions import (
    forget_older,
    is_restored,
    put_aside,
    put_back,
    restored_drafts,
)
from modelyard.runs.directory import RunDirectory, drive
from modelyard.runs.execution import Observer, Outcome
from modelyard.runs.view import replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round came to. `result` is None where nothing was run."""

    outcome: Outcome
    at: str
    causes: tuple[Cause, ...] = ()
    # Members with a new model; those that only forecast anew.
    retrained: tuple[str, ...] = ()
    refreshed: tuple[str, ...] = ()
    # Whose old version stands, and why the new one does not; `run` where the policy could not be made.
    failed: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    result: UpResult | None = None
    untold: tuple[tuple[Notice, str], ...] = ()


class Carrying:
    """Carries one ask out."""

    def __init__(self, scene: Scene, directory: RunDirectory, ask: Ask, notifier: Notifier) -> None:
        self._scene = scene
        self._directory = directory
        self._ask = ask
        self._notifier = notifier
        self._plan = scene.prepared.plan
        self._name = RunName(yard=scene.yard.id, run=scene.prepared.run)

    def out(self) -> Round:
        """Members, then the pool; a stop leaves the ask open."""
        with drive(self._directory):
            self._set_aside()
        failpoint("watch.after_aside")
        if self._stopped(self._members()):
            return self._told(Outcome.CANCELLED)
        with drive(self._directory):
            self._renew_pool()
        result = self._pool()
        if self._stopped(result):
            return self._told(Outcome.CANCELLED)
        outcome = Outcome.FAILED if result is None else result.outcome
        done = self._told(outcome, result)
        if done.failed and outcome is Outcome.SUCCEEDED:
            done = replace(done, outcome=Outcome.PARTIAL)
        self._tell(done)
        failpoint("watch.before_ended")
        said = {"retrained": list(done.retrained), "refreshed": list(done.refreshed)}
        data = {"ask": self._ask.number, **said, "failed": dict(done.failed)}
        self._scene.yard.journal.append([Draft(kind=ENDED, run=self._name.run, data=data)])
        failpoint("watch.after_ended")
        with drive(self._directory):
            keep = self._scene.prepared.declaration.watch.keep
            forget_older(self._plan.steps, self._plan.run_dir, keep=keep)
        return done

    def _set_aside(self) -> None:
        """Take away what must be made anew, unless an attempt at it has begun."""
        progress = self._replayed()
        for cause in forced(self._ask):
            item = progress[cause.step]
            if len(item.jobs) == self._ask.attempts.get(cause.step):
                put_aside(item.step, self._plan.run_dir, attempt=len(item.jobs))

    def _members(self) -> UpResult | None:
        """Run the members that have a version to fall back on, and put back those that fail."""
        wanted = [
            s.name for s in self._plan.steps if s.name.startswith("predict/") and s.name in self._ask.attempts
        ]
        names = _needed(self._plan, wanted)
        lost = lost_steps(self._plan, self._replayed(), self._ask)
        steps = tuple(s for s in self._plan.steps if s.name in names and s.name not in lost)
        result = None
        if steps:
            result = self._drive(replace(self._plan, steps=steps), continued=True)
            if self._stopped(result):
                return result
        lost |= _unmade(result)
        members = {self._plan.step(name).member for name in lost & names} - {None}
        with drive(self._directory):
            self._restore(n for n in names if n in lost or self._plan.step(n).member in members)
        return result

    def _renew_pool(self) -> None:
        """Where a member's forecasts are newer than the tables, have the tables made anew."""
        standing = Standing(self._scene, self._directory)
        collect = standing.progress["collect"]
        if collect.status is StepStatus.SUCCEEDED and outdated(standing.entries):
            put_aside(collect.step, self._plan.run_dir, attempt=len(collect.jobs))

    def _pool(self) -> UpResult | None:
        """Make tables, policy, backtest and report; where that fails, put everything back."""
        pool = {item.step.name for item in self._replayed() if is_pool(item)}
        lost = lost_steps(self._plan, self._replayed(), self._ask) & pool
        result = None
        if not lost:
            result = self._drive(self._plan, continued=False)
            if self._stopped(result):
                return result
            lost = _unmade(result) & pool
        if lost:
            with drive(self._directory):
                self._restore(step.name for step in self._plan.steps)
        return result

    def _drive(self, plan: Plan, *, continued: bool) -> UpResult:
        scene = self._scene
        options = scene.options
        if continued:
            options = replace(options, continue_on_error=True)
        observers: list[Observer] = [self._notifier, *scene.observers]
        return drive_plan(
            scene.yard, scene.prepared, self._directory, options, plan=plan, observers=observers
        )

    def _restore(self, names: Iterable[str]) -> None:
        """Put back what these steps had left when this was asked, and have it count."""
        progress, drafts = self._replayed(), []
        for name in names:
            item = progress[name]
            attempt = self._fallback(item)
            if attempt is None or is_restored(item.jobs[-1]):
                continue
            if put_back(item, self._plan.run_dir, attempt=attempt):
                drafts += restored_drafts(item, self._name, attempt=attempt)
        if drafts:
            failpoint("watch.before_restored")
            self._scene.yard.journal.append(drafts)
            failpoint("watch.after_restored")

    def _fallback(self, item: StepProgress) -> int | None:
        """The attempt whose output is the version to fall back on: put back before, it has another number."""
        attempt = self._ask.attempts.get(item.step.name)
        if attempt is None:
            return None
        return next((j.attempt for j in reversed(item.jobs[attempt:]) if is_restored(j)), attempt)

    def _told(self, outcome: Outcome, result: UpResult | None = None) -> Round:
        """What has become of the members, from the journal."""
        retrained, refreshed = [], []
        failed: dict[str, str] = {}
        for item in self._replayed():
            kind, _, member = item.step.name.partition("/")
            fresh = item.jobs[self._ask.attempts.get(item.step.name, 0) :]
            if not fresh:
                continue
            owner = item.step.member or WHOLE
            if is_restored(fresh[-1]) or fresh[-1].state is JobState.FAILED:
                failed[owner] = failed.get(owner) or _why(fresh)
            elif kind == "train":
                retrained.append(member)
            elif kind == "predict":
                refreshed.append(member)
        done = [name for name in retrained if name not in failed]
        return Round(
            outcome=outcome,
            at=self._ask.at,
            causes=self._ask.causes,
            retrained=tuple(done),
            refreshed=tuple(name for name in refreshed if name not in (*done, *failed)),
            failed=failed,
            result=result,
        )

    def _tell(self, done: Round) -> None:
        why = {cause.step: cause.why for cause in self._ask.causes}
        for member in done.retrained:
            step = f"train/{member}"
            self._notifier.send(Notice(state="retrained", step=step, why=why.get(step, "")))
        if done.outcome is Outcome.SUCCEEDED:
            self._notifier.send(Notice(state="succeeded", step=WHOLE))

    def _replayed(self) -> Progress:
        return replayed(self._directory, self._scene.yard.journal)

    @staticmethod
    def _stopped(result: UpResult | None) -> bool:
        return result is not None and result.outcome is Outcome.CANCELLED


def _needed(plan: Plan, wanted: Iterable[str]) -> set[str]:
    """Steps and all that they need."""
    names = set(wanted)
    for step in reversed(plan.steps):  # each comes after what it waits for
        if step.name in names:
            names.update(step.needs)
    return names


def _unmade(result: UpResult | None) -> set[str]:
    """Steps that an invocation did not bring to success."""
    if result is None:
        return set()
    return {item.step.name for item in result.progress if item.status is not StepStatus.SUCCEEDED}


def _why(jobs: Iterable[Job]) -> str:
    """What the newest attempt that failed said; nothing where none did."""
    ended = [job.report.detail for job in jobs if job.state in (JobState.FAILED, JobState.LOST)]
    return ended[-1] if ended else ""
