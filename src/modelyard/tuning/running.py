"""The trials that this process looks after: proposed, watched, stopped and settled.

It answers what the runner asks, and decides nothing itself: the searcher proposes and judges.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelyard.core.failpoints import failpoint
from modelyard.core.redaction import scrubbed, secret_values
from modelyard.jobs.backend import Backend
from modelyard.jobs.job import JobState
from modelyard.jobs.progress import StepProgress, StepStatus
from modelyard.jobs.runner import Runner
from modelyard.jobs.step import Step
from modelyard.tuning.earlier import Earlier
from modelyard.tuning.failures import Triage, smaller, triage, with_less
from modelyard.tuning.metrics.watching import Watch
from modelyard.tuning.others import Others
from modelyard.tuning.result import best_trial
from modelyard.tuning.search import Hooks, Search
from modelyard.tuning.study import Noted, Study
from modelyard.tuning.trial import Ended, Objective, Proposal, Trial, TrialState
from modelyard.tuning.workload import METRICS_FILE, Attempt

#: What a trial keeps that was told to end early: the reason, and whether it counts as failed.
_STOPPED = "stopped"
#: Trials that are proposed within this time are launched together.
_GATHERING_S = 0.1
#: The note of a trial that is tried because it was among the best of an earlier study: study/number.
EARLIER = "earlier"


@dataclass(slots=True, kw_only=True)
class _Open:
    """A running trial of this process."""

    step: Step
    watch: Watch | None = None
    looked: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the trials are looked after with."""

    study: Study
    backend: Backend
    others: Others
    hooks: Hooks
    # Told of each trial that has ended, once it is in the study.
    note: Callable[[Trial], None]
    # What the searcher knows from earlier studies.
    earlier: Earlier = Earlier()
    # What the commands of trials may see, secrets among it.
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class RunningTrials:
    """The trials of one process, from proposal to end."""

    def __init__(self, search: Search, around: Surroundings) -> None:
        self._search, self._around, self._limits = search, around, search.limits
        self._study, self._backend, self._hooks = around.study, around.backend, around.hooks
        self._open: dict[int, _Open] = {}
        self._ended: set[int] = set()
        self._settled: list[int] = []  # trials that have ended in this invocation
        self._deadline = time.monotonic() + (search.limits.budget_s or float("inf"))
        self._others = around.others
        # How many trials had ended when the searcher asked to wait; None where it did not.
        self._waits_since: int | None = None
        self.runner: Runner  # set before the first question
        # Values of secrets that the trials begun so far may print; the runner looks here at each end.
        self.hidden: list[str] = []
        self._secrets: set[str] = set()
        # Why nothing more is proposed: budget | target | triage | lost; empty while something is.
        self.closing = ""
        self.triage: Triage | None = None
        # What to tell where the trials could not all be run.
        self.why = ""

    def steps(self) -> list[Step]:
        """The steps of all trials that run in this yard, those of other processes among them."""
        own = {number: each.step for number, each in self._open.items()}
        return [
            own[trial.number] if trial.number in own else self._step(trial)
            for trial in self._study.trials()
            if not trial.state.final and (trial.number in own or self._others.is_near(trial))
        ]

    def observe(self, item: StepProgress) -> None:
        """Told by the runner of every change."""
        if item.status.ended:
            self._ended.add(_number(item.step.name))
        elif item.status is StepStatus.WAITING and item.jobs:  # to be made again: what was told is another's
            told = trial_folder(self._search.run_dir, _number(item.step.name)) / METRICS_FILE
            with contextlib.suppress(FileNotFoundError):
                told.rename(told.with_name(f"{told.stem}.attempt-{len(item.jobs)}{told.suffix}"))

    def inherit(self) -> Sequence[Step]:
        """The trials that nobody looks after: those of drivers that have ended."""
        if self.closing or self.runner.stopped or len(self._open) >= self._limits.parallel:
            return ()
        if not self._orphans():
            return ()
        with self._study.alone():
            taken = self._orphans()[: self._limits.parallel - len(self._open)]
            for trial in taken:
                self._study.note(trial.number, driver=self._others.driver)
        return [self._begin(trial) for trial in taken]

    def _orphans(self) -> list[Trial]:
        return [trial for trial in self._study.trials() if self._is_orphan(trial)]

    def _is_orphan(self, trial: Trial) -> bool:
        if trial.state.final or trial.number in self._open:
            return False
        return self._others.is_orphan(trial)

    def wait_for_others(self, asked: Callable[[], str]) -> bool:
        """Wait where the searcher does, for trials of other drivers; whether there is more to do.

        False once nothing can come, the time is over, or the searcher did not ask to wait.
        """

        def given_up() -> bool:
            return bool(asked()) or time.monotonic() >= self._deadline

        if self._waits_since is None or self.closing:
            return False
        news = self._others.wait(given_up, ended=self._waits_since, poll_s=self._limits.poll_s)
        return news or bool(asked())

    def grow(self) -> Sequence[Step]:
        """Settle what has ended, and propose while there is room; a slow proposal keeps no other waiting."""
        self._others.beat()
        self.settle_ended()
        if time.monotonic() >= self._deadline:
            self.closing = self.closing or "budget"
        steps: list[Step] = []
        until = time.monotonic() + _GATHERING_S
        while not self.closing and not self.runner.stopped and len(self._open) < self._limits.parallel:
            if steps and time.monotonic() > until:
                break
            trial = self._propose()
            if trial is None:
                break
            failpoint("tuner.after_ask")
            self._hooks.proposed(trial)
            steps.append(self._begin(trial))
        return steps

    # -- proposing -------------------------------------------------------------------------------------

    def _propose(self) -> Trial | None:
        with self._study.alone():
            trials = self._study.trials()
            if len(trials) >= self._limits.trials:
                return None
            proposal = self._next(trials)
            self._waits_since = None
            if proposal is None:
                self._waits_since = sum(trial.state.final for trial in trials)
                return None
            point = self._search.space.repair(proposal.point)
            assignments = self._search.space.assignments(point)
            proposal = replace(proposal, point=point)
            return self._study.add(proposal, driver=self._others.driver, assignments=assignments)

    def _next(self, trials: Sequence[Trial]) -> Proposal | None:
        """A smaller batch where memory was short; else what the searcher says, the first points given."""
        space = self._search.space
        retry = with_less(space, trials)
        if retry is not None:
            return retry
        earlier, starts = self._around.earlier, self._search.starts
        proposal = self._search.searcher.propose([*earlier.trials, *trials], len(trials))
        if proposal is None or proposal.parent is not None:
            return proposal
        given = sum(trial.source in ("default", "start") for trial in trials)
        if given == 0:
            return replace(proposal, point=space.default(), source="default")
        if given <= len(starts):
            return replace(proposal, point=space.point(starts[given - 1]), source="start")
        if given <= len(starts) + len(earlier.first):
            point, whose = earlier.first[given - len(starts) - 1]
            return replace(proposal, point=point, source="start", notes={**proposal.notes, EARLIER: whose})
        return proposal

    def _begin(self, trial: Trial) -> Step:
        step = self._step(trial)
        self._open[trial.number] = _Open(step=step)
        self._secrets.update(step.secrets)
        self.hidden[:] = secret_values(self._around.environment, self._secrets)
        return step

    def _step(self, trial: Trial) -> Step:
        folder = trial_folder(self._search.run_dir, trial.number)
        parent = None if trial.parent is None else trial_folder(self._search.run_dir, trial.parent)
        attempt = Attempt(
            name=step_name(trial.number), folder=folder, number=trial.number, seed=self._limits.seed,
            assignments=self._search.space.assignments(trial.point), budget=trial.budget, parent=parent,
        )  # fmt: skip
        return self._search.workload.step(attempt)

    # -- watching --------------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at what runs, where it is time; nothing that has ended waits for it."""
        now = time.monotonic()
        due = [
            number
            for number, own in self._open.items()
            if now - own.looked >= self._limits.poll_s
            and self.runner.progress[own.step.name].status is StepStatus.RUNNING
            and not self.runner.progress[own.step.name].ending
        ]
        noted = self._study.noted() if due else ()
        trials = [trial for trial, _ in noted]
        for number in due:
            self._open[number].looked = now
            self._look(number, trials, noted[number][1].get(_STOPPED))

    def _look(self, number: int, trials: list[Trial], stopped: Mapping[str, Any] | None) -> None:
        """Take over what a trial has reported; stop it where it is not worth more."""
        own = self._open[number]
        item = self.runner.progress[own.step.name]
        if stopped is not None:  # by a driver that was killed before the job had ended
            self.runner.end_early(own.step.name, stopped["why"])
            return
        watch = self._watch(number, own, item)
        if self._taken_over(number, watch.look(), trials):
            self.runner.end_early(own.step.name, "not good enough")
        elif watch.diverged:
            self._study.note(number, **{_STOPPED: {"failed": True, "why": watch.diverged}})
            self.runner.end_early(own.step.name, watch.diverged)

    def _taken_over(self, number: int, points: Sequence[tuple[int, float]], trials: list[Trial]) -> bool:
        """Judge a trial's new points one by one and store them; whether one of them stops it.

        What it reported after that point is not stored: it does not depend on when somebody looked.
        """
        kept: dict[int, float] = {}
        why = ""
        for step, value in points:
            kept[step] = value
            trials[number] = replace(trials[number], curve={**trials[number].curve, step: value})
            # what was gained over the default is only known where that comes to its end
            if trials[number].source != "default" and not self._search.searcher.keeps(trials, number, step):
                why = f"stopped at step {step}, where it had {value:.6g}"
                break
        self._study.report(number, kept)
        for step, value in kept.items():
            self._hooks.reported(number, step, value)
        if why:
            self._study.note(number, **{_STOPPED: {"failed": False, "why": why}})
            failpoint("tuner.after_stopping")
        return bool(why)

    def _watch(self, number: int, own: _Open, item: StepProgress) -> Watch:
        """What reads this attempt's reports; another attempt is read from its beginning."""
        job = item.jobs[-1]
        if own.watch is None or own.watch.key != job.key:
            places = self._search.reads.places(trial_folder(self._search.run_dir, number))
            own.watch = Watch(
                key=job.key, rules=self._search.rules, places=places, seen=self._study.trial(number).curve,
                logs=lambda at: self._logs(job.native_id, at),
            )  # fmt: skip
        return own.watch

    def _logs(self, native_id: str, offset: int) -> tuple[bytes, int]:
        return self._backend.logs(native_id, "stdout", offset) if native_id else (b"", offset)

    # -- settling --------------------------------------------------------------------------------------

    def settle_ended(self) -> None:
        """Settle what has ended; trials that a stop has cancelled, or the machine has lost, stay open."""
        for number in sorted(self._ended):
            own = self._open.pop(number)
            item = self.runner.progress[own.step.name]
            if item.last is not None and item.last.state is JobState.LOST and not item.ending:
                self.closing = "lost"
                self.why = f"trial {number}: {item.note}; mend the machine, then run the same command again"
            elif item.status is not StepStatus.CANCELLED or item.ending:
                self._settle(number, own, item)
            self.runner.progress.drop(own.step.name)
        self._ended.clear()

    def _settle(self, number: int, own: _Open, item: StepProgress) -> None:
        """Record how a trial ended."""
        failpoint("tuner.before_tell")
        ended = self._how_it_ended(number, own, item, self._study.noted())
        why = scrubbed(ended.why, self.hidden)  # it may quote what the command printed
        if not self._study.tell(number, replace(ended, why=why)):
            return
        failpoint("tuner.after_tell")
        self._settled.append(number)
        trials = self._study.trials()
        self._around.note(trials[number])
        self._hooks.ended(trials[number], best_trial(trials, self._search.objectives[0]))
        self._close_if_done(trials)

    def _how_it_ended(self, number: int, own: _Open, item: StepProgress, noted: Noted) -> Ended:
        last, trials = item.last, [trial for trial, _ in noted]
        key = last.key if last is not None else ""
        stopped = noted[number][1].get(_STOPPED)
        well = item.status is StepStatus.SUCCEEDED
        if stopped is None and last is not None and last.native_id:
            stopped = self._last_look(number, own, item, trials)
        if stopped is not None:
            state, cause = (TrialState.FAILED, "diverged") if stopped["failed"] else (TrialState.PRUNED, "")
            return Ended(state=state, why=stopped["why"], cause=cause, attributes={"job": key})
        if not well:
            native = last.native_id if last is not None else ""
            cause = self._backend.explain(native, last.report).cause if last is not None and native else ""
            return Ended(state=TrialState.FAILED, why=item.note, cause=cause, attributes={"job": key})
        return self._measured(trials[number], own, job=key)

    def _last_look(self, number: int, own: _Open, item: StepProgress, trials: list[Trial]) -> Any:
        """Read what came last; what the trial would have been stopped for counts though it has ended."""
        ended_well = item.status is StepStatus.SUCCEEDED
        points = self._watch(number, own, item).look(ended_well=ended_well)
        if not ended_well:
            self._study.report(number, dict(points))
        elif points and self._taken_over(number, points, trials):
            return self._study.attributes(number)[_STOPPED]
        return None

    def _measured(self, trial: Trial, own: _Open, *, job: str) -> Ended:
        values = self._hooks.measured(trial, job)
        cause = "metric"
        if values is None:
            values = own.watch.values(self._search.objectives) if own.watch else "it was never watched"
            cause = "diverged" if own.watch and own.watch.diverged else cause
        elif not isinstance(values, str) and not all(map(math.isfinite, values)):
            values = f"it was measured as {', '.join(map(str, values))}, which is no finite number"
        if isinstance(values, str):
            return Ended(state=TrialState.FAILED, why=values, cause=cause, attributes={"job": job})
        excess = self._excess(own)
        if isinstance(excess, str):
            return Ended(state=TrialState.FAILED, why=excess, cause="metric", attributes={"job": job})
        kept = {"job": job, "metrics": {} if own.watch is None else own.watch.others()}
        return Ended(state=TrialState.COMPLETE, values=values, excess=excess, attributes=kept)

    def _excess(self, own: _Open) -> tuple[float, ...] | str:
        """How far each constraint is exceeded; or why that is not known."""
        constraints = self._search.constraints
        if not constraints or own.watch is None:
            return ()
        measured = own.watch.values([Objective(metric=c.metric, direction="minimize") for c in constraints])
        if isinstance(measured, str):
            return f"a constraint cannot be judged: {measured}"
        return tuple(c.excess(value) for c, value in zip(constraints, measured, strict=True))

    def _close_if_done(self, trials: Sequence[Trial]) -> None:
        objective, best = self._search.objectives[0], best_trial(trials, self._search.objectives[0])
        target = self._limits.target
        if best is not None and target is not None:
            gap = objective.sign * ((best.value or 0.0) - target)
            self.closing = "target" if gap <= 0 else self.closing
        space, settled = self._search.space, [trials[number] for number in self._settled]
        in_the_end = [trial for trial in settled if smaller(space, trials, trial) is None]
        self.triage = triage(in_the_end, first=self._limits.fail_alike)
        if self.triage is not None:
            self.closing = "triage"


def trial_folder(run_dir: Path, number: int) -> Path:
    """What belongs to one trial."""
    return run_dir / "trials" / f"{number:04d}"


def step_name(number: int) -> str:
    """The name of a trial's step."""
    return f"trial/{number:04d}"


def _number(step: str) -> int:
    return int(step.rpartition("/")[2])
