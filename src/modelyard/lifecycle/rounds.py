"""Rounds of `up --watch`: the yard is run to its end, then looked at again and again.

A round that finds causes asks for them in the journal before anything is touched, and is then carried
out in two parts: the members first, the pool after them. What ends badly is put back as it was when
the round was asked for: a member alone, or, where the policy itself cannot be made, everything. Each
part begins from what the journal says, so a round that was killed anywhere is carried out by the next
that looks, and no cause is acted on twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.errors import RunBusy
from modelyard.core.failpoints import failpoint
from modelyard.core.journal import Draft, Entry
from modelyard.core.locks import held
from modelyard.jobs.job import Job, JobState
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus, entries_of_run
from modelyard.jobs.runner import RunName
from modelyard.lifecycle.causes import ASKED, ENDED, Ask, Asks, Cause, Look, Seen, look, read_asks
from modelyard.lifecycle.notices import WHOLE, Notice, Notifier
from modelyard.lifecycle.up import Prepared, UpResult, begin, drive_plan, notices, up
from modelyard.lifecycle.versions import is_restored, put_aside, put_back, restored_drafts
from modelyard.runs.directory import RunDirectory, drive, open_run
from modelyard.runs.execution import ExecutionOptions, Observer, Outcome, judge
from modelyard.runs.view import replayed
from modelyard.runs.yard import Yard

#: Losses that the runner makes good without counting them.
_LOST_LIMIT = 3
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What every round works on."""

    yard: Yard
    prepared: Prepared
    options: ExecutionOptions
    observers: Sequence[Observer] = ()
    clock: Clock = utc_now


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


def watch(
    scene: Scene, *, every_s: float, rounds: int | None, pause: Callable[[float], bool]
) -> Iterator[Round]:
    """Take rounds until so many were taken, or a stop is asked for.

    Args:
        scene: What is watched.
        every_s: How long to wait between two.
        rounds: How many; None: without end.
        pause: Waits so many seconds; true where a stop was asked for meanwhile.

    Raises:
        DocumentError, RunError: As `up`; also where another process watches the same run.
    """
    directory = begin(scene.yard, scene.prepared)
    try:
        with held(directory.path / "watch.lock"):
            taken = 0
            while True:
                done = take_round(scene)
                yield done
                taken += 1
                if done.outcome is Outcome.CANCELLED or taken == rounds:
                    return
                if pause(every_s):
                    yield Round(outcome=Outcome.CANCELLED, at=stamp(scene.clock()))
                    return
    except BlockingIOError as error:
        raise RunBusy(
            f"{scene.prepared.run}: another process watches this run; end that one first"
        ) from error


def pause_unless(asked: Collection[str]) -> Callable[[float], bool]:
    """A pause that ends as soon as something is in `asked`."""

    def pause(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not asked and (left := deadline - time.monotonic()) > 0.0:
            time.sleep(min(_LOOK_S, left))
        return bool(asked)

    return pause


def foreseen(scene: Scene) -> Look | None:
    """What the next round would find; None where it would first run the yard to its end."""
    path = scene.prepared.declaration.scope.run_dir
    if not (path / "run.json").exists():
        return None
    standing = _Standing(scene, open_run(path))
    if standing.asks.open is not None:
        return Look(causes=standing.asks.open.causes)
    return standing.look() if standing.finished else None


def take_round(scene: Scene) -> Round:
    """Carry out what is left of the last round, or look, and carry out what there is to do."""
    directory = begin(scene.yard, scene.prepared)
    standing = _Standing(scene, directory)
    ask, problem = standing.asks.open, ""
    if ask is None and not standing.finished:
        result = up(scene.yard, scene.prepared, scene.options, observers=scene.observers)
        at = stamp(scene.clock())
        return Round(outcome=result.outcome, at=at, result=result, untold=result.untold)
    if ask is None:
        found = standing.look()
        problem = found.problem
        if not found.causes:
            outcome = judge(standing.progress, stopped=False, continued=True)
            return Round(outcome=outcome, at=stamp(standing.now), problem=problem)
        with drive(directory):
            ask = standing.ask(found.causes)
        failpoint("watch.after_asked")
    with notices(scene.yard, scene.prepared, scene.options) as notifier:
        done = _Carrying(scene, directory, ask, notifier).out()
    return replace(done, problem=problem, untold=tuple(notifier.untold))


class _Standing:
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
        return all(item.status is StepStatus.SUCCEEDED for item in self.progress if _is_pool(item))

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
            for cause in _forced(ask)
        ]
        self._scene.yard.journal.append(drafts)
        return ask


class _Carrying:
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
        return done

    def _set_aside(self) -> None:
        """Take away what must be made anew, unless an attempt at it has begun."""
        progress = self._replayed()
        for cause in _forced(self._ask):
            item = progress[cause.step]
            if len(item.jobs) == self._ask.attempts.get(cause.step):
                put_aside(item.step, self._plan.run_dir, attempt=len(item.jobs))

    def _members(self) -> UpResult | None:
        """Run the members that have a version to fall back on, and put back those that fail."""
        wanted = [
            s.name for s in self._plan.steps if s.name.startswith("predict/") and s.name in self._ask.attempts
        ]
        names = _needed(self._plan, wanted)
        lost = _lost(self._plan, self._replayed(), self._ask)
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
        standing = _Standing(self._scene, self._directory)
        collect = standing.progress["collect"]
        if collect.status is StepStatus.SUCCEEDED and _outdated(standing.entries):
            put_aside(collect.step, self._plan.run_dir, attempt=len(collect.jobs))

    def _pool(self) -> UpResult | None:
        """Make tables, policy, backtest and report; where that fails, put everything back."""
        pool = {item.step.name for item in self._replayed() if _is_pool(item)}
        lost = _lost(self._plan, self._replayed(), self._ask) & pool
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


def _forced(ask: Ask) -> list[Cause]:
    """Causes that the runner cannot see by itself."""
    return [cause for cause in ask.causes if cause.kind != "data"]


def _is_pool(item: StepProgress) -> bool:
    """Whether a step is one of our own makers: neither a member's nor a preparation."""
    return "/" not in item.step.name


def _needed(plan: Plan, wanted: Iterable[str]) -> set[str]:
    """Steps and all that they need."""
    names = set(wanted)
    for step in reversed(plan.steps):  # each comes after what it waits for
        if step.name in names:
            names.update(step.needs)
    return names


def _lost(plan: Plan, progress: Progress, ask: Ask) -> set[str]:
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


def _unmade(result: UpResult | None) -> set[str]:
    """Steps that an invocation did not bring to success."""
    if result is None:
        return set()
    return {item.step.name for item in result.progress if item.status is not StepStatus.SUCCEEDED}


def _outdated(entries: Iterable[Entry]) -> bool:
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


def _why(jobs: Iterable[Job]) -> str:
    """What the newest attempt that failed said; nothing where none did."""
    ended = [job.report.detail for job in jobs if job.state in (JobState.FAILED, JobState.LOST)]
    return ended[-1] if ended else ""
