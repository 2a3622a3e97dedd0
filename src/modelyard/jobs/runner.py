"""The runner: drives a plan on a backend until every step has ended.

It announces an attempt in the journal before it submits it, so that after a crash the attempt's
key tells whether it was submitted; jobs that outlived a runner are adopted by the next. A step has
one SUCCEEDED attempt, and its attempts never overlap. The runner does not know what a step is for.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelyard.core.digests import Fingerprints
from modelyard.core.errors import BackendUnreachable, RunMismatch, SubmitError
from modelyard.core.failpoints import failpoint
from modelyard.core.journal import Draft, Journal
from modelyard.core.redaction import scrubbed
from modelyard.jobs.backend import Backend, gathered
from modelyard.jobs.job import Job, JobState, Report, job_key, report_record
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus, entries_of_run
from modelyard.jobs.step import Resources, Step

#: Attempts that were lost with their machine or wrapper are made again without counting as retries.
_LOST_LIMIT = 3
_BACKOFF_LIMIT_S = 300.0
_UNREACHABLE_LIMIT_S = 600.0
_TELLING_CHARS = 240

#: A check of one kind of output: the path, and the reason why it cannot be used (None: it can).
Check = Callable[[Path], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """How a runner behaves."""

    continue_on_error: bool = False
    # Checks by the `kind` of an output, beyond "is there and not empty".
    checks: Mapping[str, Check] = field(default_factory=dict)
    # Told of each step at the start and of every change; must return soon.
    observe: Callable[[StepProgress], None] = lambda _item: None
    # Called whenever nothing is left to do but wait.
    settled: Callable[[], None] = lambda: None
    # Asked for further steps at every look, once what has ended is recorded: those that another runner
    # may have begun, and those that nobody has.
    inherit: Callable[[], Sequence[Step]] = tuple
    grow: Callable[[], Sequence[Step]] = tuple
    # Whether a step that failed in an earlier invocation is given another try.
    again: bool = True
    # Asked at least twice a second whether to stop the jobs and leave a resumable run.
    stop: Callable[[], str] = lambda: ""
    # Values of secrets: a command may print them, what is told of its end may not hold them.
    hidden: Sequence[str] = ()
    # Longest sleep between two looks.
    tick_s: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunName:
    """Which run of which yard: part of every job's key."""

    yard: str
    run: str


class Runner:
    """One invocation over one plan."""

    def __init__(
        self, plan: Plan, *, backend: Backend, journal: Journal, name: RunName, options: RunnerOptions
    ) -> None:
        self.progress = Progress(plan)
        self.stopped = ""
        self._backend = backend
        self._journal = journal
        self._name = name
        self._options = options
        self._active: dict[str, StepProgress] = {}  # native id -> step
        self._not_before: dict[str, float] = {}  # step -> monotonic time of its next attempt
        self._drafts: list[Draft] = []
        self._unreachable_since: float | None = None
        self._fingerprints = Fingerprints()
        self._setback = False  # whether a step has ended badly since what hangs on it was looked at

    def run(self) -> Progress:
        """Drive every step to its end and give the standing of all.

        Raises:
            JournalError: Nothing more can be recorded; jobs go on and are adopted by the next runner.
            BackendUnreachable: Nobody answered for ten minutes; likewise.
        """
        self._take_over(tuple(self.progress))
        while True:
            self._harvest()
            self._heed_stop()
            grown = self._grow()
            self._skip_hopeless()
            self._launch_ready()
            self._flush()
            if grown:  # there may be more at once
                continue
            if not self._active and not self._pending():
                if not self._grow():
                    break
                continue
            self._options.settled()
            self._backend.wait(self._nap())
        self._flush()
        return self.progress

    def end_early(self, step: str, why: str) -> None:
        """Cancel the attempt that runs for a step; it is not made again, and nothing else is stopped."""
        self.progress[step].ending = why
        self._backend.cancel([id_ for id_, item in self._active.items() if item.step.name == step])

    # -- taking over -----------------------------------------------------------------------------------

    def _take_over(self, items: Sequence[StepProgress]) -> None:
        """Learn from the journal what was done about these steps, and go on from there."""
        steps = {item.step.name for item in items}
        own = entries_of_run(self._journal.read(), run=self._name.run, run_dir=self.progress.plan.run_dir)
        self.progress.replay(entry for entry in own if entry.data.get("step") in steps)
        if not self._options.again:
            self._leave_failed(items)
        self._recheck_succeeded(items)
        self._refuse_misfits(items)
        with gathered(self._backend):
            self._adopt(items)

    def _recheck_succeeded(self, items: Iterable[StepProgress]) -> None:
        """A step is run again when its output has gone, an input has changed, or what it waits for runs."""
        for item in items:  # plan order: what it waits for comes first
            if item.status is StepStatus.SUCCEEDED:
                awaited = [
                    n for n in (*item.step.needs, *item.step.after) if not self.progress[n].status.ended
                ]
                why = f"{awaited[0]} runs again" if awaited else self._stale(item)
                if why:
                    item.status = StepStatus.WAITING
                    self._note("step.invalidated", {"step": item.step.name, "why": why})
            if item.invalidated:  # now, or on record by whoever died before setting it aside
                set_aside(item.step, self.progress.plan.run_dir, attempt=len(item.jobs))
            self._options.observe(item)

    def _leave_failed(self, items: Iterable[StepProgress]) -> None:
        """Count what earlier invocations tried; a step that has used it up stays failed."""
        for item in items:
            item.tried = sum(job.state is JobState.FAILED for job in item.jobs)
            last = item.last
            if last is not None and last.state is JobState.FAILED and item.tried > item.step.retries:
                item.status, item.note = StepStatus.FAILED, last.report.detail

    def _grow(self) -> bool:
        """Take further steps into the plan, once all that has ended is on record; whether there were any."""
        self._flush()
        begun = [self.progress.add(step) for step in self._options.inherit()]
        if begun:
            self._take_over(begun)
        fresh = [self.progress.add(step) for step in self._options.grow()]
        for item in fresh:
            self._options.observe(item)
        self._refuse_misfits(fresh)
        return bool(begun or fresh)

    def _refuse_misfits(self, items: Iterable[StepProgress]) -> None:
        """A step that can never run on this backend fails at once instead of waiting for ever."""
        for item in items:
            if item.status is not StepStatus.WAITING:
                continue
            reason = self._backend.fits(item.step.resources)
            if reason:
                item.status, item.note, self._setback = StepStatus.FAILED, reason, True
                self._note("step.refused", {"step": item.step.name, "why": reason})
                self._options.observe(item)

    def _stale(self, item: StepProgress) -> str:
        """Why what a step left cannot be relied on; empty when it can."""
        known = item.last.inputs if item.last is not None else {}
        changed = next((path for path, was in known.items() if self._fingerprints.of(path) != was), "")
        return f"{changed} has changed" if changed else missing_output(item.step)

    def _adopt(self, items: Iterable[StepProgress]) -> None:
        """Take over announced attempts: the submitted ones go on, the others are submitted now.

        Raises:
            RunMismatch: One was announced for another backend, where it may be running; nothing was done.
        """
        announced = [
            (item, item.last) for item in items if item.last is not None and not item.last.state.final
        ]
        for item, job in announced:
            if job.backend != self._backend.name:
                raise RunMismatch(
                    f"{item.step.name}: attempt {job.attempt} was given to the backend {job.backend} and has "
                    f"not ended there; go on with --backend {job.backend}, or `modelyard cancel` it first "
                    f"to go on with {self._backend.name}"
                )
        for item, job in announced:
            native_id = self._backend.find(job.key)
            if native_id is None and job.step_digest == item.digest:
                self._submit(item, job)
            elif native_id is None:
                report = Report(
                    state=JobState.CANCELLED,
                    reason="cancelled",
                    detail="announced, never submitted; the step changed",
                )
                self._record_end(item, job, report)
            else:
                self._activate(item, replace(job, native_id=native_id))
                if job.step_digest != item.digest:
                    self._backend.cancel([native_id])

    # -- watching --------------------------------------------------------------------------------------

    def _harvest(self) -> None:
        try:
            reports = self._backend.poll(list(self._active))
            self._unreachable_since = None
        except BackendUnreachable:
            now = time.monotonic()
            self._unreachable_since = self._unreachable_since or now
            if now - self._unreachable_since > _UNREACHABLE_LIMIT_S:
                raise
            return
        for native_id, report in reports.items():
            item = self._active[native_id]
            job = item.jobs[-1]
            if report.state.final:
                del self._active[native_id]
                self._end(item, replace(job, native_id=native_id), report)
            elif report.state is not job.state:
                item.jobs[-1] = replace(job, report=report)
                self._options.observe(item)

    def _end(self, item: StepProgress, job: Job, report: Report) -> None:
        """Judge an attempt that ended: its outputs, and whether there is to be another."""
        if report.state is JobState.SUCCEEDED:
            fault = self._output_fault(item.step)
            if fault:
                report = replace(report, state=JobState.FAILED, reason="output", detail=fault)
        elif report.state is JobState.FAILED and job.native_id:
            report = replace(report, detail=self._told(job, report))
        self._record_end(item, job, report)
        item.status = self._verdict(item, report)
        self._setback = self._setback or item.status is StepStatus.FAILED
        item.note = "" if report.state is JobState.SUCCEEDED else report.detail
        self._options.observe(item)

    def _told(self, job: Job, report: Report) -> str:
        """The detail of a failure with the line of the log that tells most."""
        lines = self._backend.explain(job.native_id, report).lines
        telling = scrubbed(lines[-1], self._options.hidden)[:_TELLING_CHARS] if lines else ""
        return report.detail if not telling or telling in report.detail else f"{report.detail}: {telling}"

    def _verdict(self, item: StepProgress, report: Report) -> StepStatus:
        if report.state is JobState.SUCCEEDED and item.jobs[-1].step_digest == item.digest:
            return StepStatus.SUCCEEDED
        if self.stopped or item.ending:
            return StepStatus.CANCELLED
        if item.jobs[-1].step_digest != item.digest:
            return StepStatus.WAITING
        if report.reason == "unclear":  # another attempt might run beside it: that is for a person to say
            return StepStatus.FAILED
        if report.state is JobState.LOST:
            item.lost += 1
            if item.lost <= _LOST_LIMIT:
                return StepStatus.WAITING
        item.tried += 1
        if item.tried > item.step.retries:
            return StepStatus.FAILED
        self._not_before[item.step.name] = time.monotonic() + backoff_s(item.step, item.tried)
        return StepStatus.WAITING

    def _output_fault(self, step: Step) -> str:
        fault = missing_output(step)
        if fault:
            return fault
        for output in step.outputs:
            check = self._options.checks.get(output.kind)
            problem = check(Path(output.path)) if check else None
            if problem:
                return f"{output.path}: {problem}"
        return ""

    # -- deciding --------------------------------------------------------------------------------------

    def _heed_stop(self) -> None:
        reason = self._options.stop()
        if reason and not self.stopped:
            self.stopped = reason
            self._note("run.stopping", {"why": reason})
        if self.stopped:
            self._backend.cancel(list(self._active))
            for item in self.progress.with_status(StepStatus.WAITING):
                item.status = StepStatus.CANCELLED
                self._options.observe(item)

    def _skip_hopeless(self) -> None:
        """Skip what needs a step that failed; without `continue_on_error`, all that has not begun."""
        if not self._setback:
            return
        self._setback = False
        failed = [i for i in self.progress.with_status(StepStatus.FAILED) if i.step.required]
        ended_early = failed[0].step.name if failed and not self._options.continue_on_error else ""
        for item in self.progress.with_status(StepStatus.WAITING):  # plan order: needs come first
            culprit = next((n for n in item.step.needs if self._hopeless(n)), "")
            if culprit:
                self._skip(item, f"needs {culprit}, which did not succeed")
            elif ended_early:
                self._skip(item, f"{ended_early} failed and continue_on_error is off")

    def _hopeless(self, name: str) -> bool:
        status = self.progress[name].status
        return status.ended and status is not StepStatus.SUCCEEDED

    def _skip(self, item: StepProgress, why: str) -> None:
        item.status, item.note = StepStatus.SKIPPED, why
        self._note("step.skipped", {"step": item.step.name, "why": why})
        self._options.observe(item)

    def _pending(self) -> bool:
        return any(item.status is StepStatus.WAITING for item in self.progress)

    def _ready(self) -> Iterable[StepProgress]:
        now = time.monotonic()
        for item in self.progress.with_status(StepStatus.WAITING):
            step = item.step
            if self._not_before.get(step.name, 0.0) > now:
                continue
            if all(self.progress[n].status is StepStatus.SUCCEEDED for n in step.needs) and all(
                self.progress[n].status.ended for n in step.after
            ):
                yield item

    # -- launching -------------------------------------------------------------------------------------

    def _launch_ready(self) -> None:
        """Announce and submit ready steps while there is room; ends are recorded in the same write."""
        with gathered(self._backend):
            for item in self._ready():
                if not self._backend.free(Resources()):
                    return
                if not self._backend.free(item.step.resources):
                    continue
                job = self._announce(item)
                failpoint("runner.after_intent")
                self._submit(item, job)
                failpoint("runner.after_submit")

    def _announce(self, item: StepProgress) -> Job:
        attempt = len(item.jobs) + 1
        key = job_key(
            yard=self._name.yard,
            run=self._name.run,
            step=item.step.name,
            step_digest=item.digest,
            attempt=attempt,
        )
        job = Job(
            key=key,
            step=item.step.name,
            step_digest=item.digest,
            attempt=attempt,
            backend=self._backend.name,
            inputs={path: self._fingerprints.of(path) for path in item.step.inputs},
        )
        item.jobs.append(job)
        self._note(
            "job.intent",
            {
                "key": key,
                "step": job.step,
                "step_digest": job.step_digest,
                "attempt": attempt,
                "backend": job.backend,
                "inputs": dict(job.inputs),
            },
        )
        self._flush()
        return job

    def _submit(self, item: StepProgress, job: Job) -> None:
        try:
            native_id = self._backend.submit(item.step, job.key)
        except SubmitError as error:
            report = Report(state=JobState.FAILED, reason="start", detail=str(error))
            self._end(item, job, report)
            return
        self._activate(item, replace(job, native_id=native_id))

    def _activate(self, item: StepProgress, job: Job) -> None:
        item.jobs[-1] = job
        item.status = StepStatus.RUNNING
        self._active[job.native_id] = item
        self._options.observe(item)

    # -- recording -------------------------------------------------------------------------------------

    def _record_end(self, item: StepProgress, job: Job, report: Report) -> None:
        item.jobs[-1] = replace(job, report=report)
        self._note(
            "job.finished",
            {
                "key": job.key,
                "step": job.step,
                "attempt": job.attempt,
                "native_id": job.native_id,
                **report_record(report),
            },
        )
        failpoint("runner.before_finished")

    def _note(self, kind: str, data: Mapping[str, object]) -> None:
        self._drafts.append(Draft(kind=kind, run=self._name.run, data=data))

    def _flush(self) -> None:
        ended = any(draft.kind == "job.finished" for draft in self._drafts)
        self._journal.append(self._drafts)
        self._drafts.clear()
        if ended:
            failpoint("runner.after_finished")

    def _nap(self) -> float:
        due = [
            self._not_before[i.step.name]
            for i in self.progress.with_status(StepStatus.WAITING)
            if i.step.name in self._not_before
        ]
        until = min(due, default=float("inf")) - time.monotonic()
        return max(0.0, min(self._options.tick_s, until))


def missing_output(step: Step) -> str:
    """The first declared output that is not there or is empty, as a sentence; empty when all are."""
    for output in step.outputs:
        path = Path(output.path)
        folder = False
        try:
            folder = path.is_dir()
            empty = not any(path.iterdir()) if folder else path.stat().st_size == 0
        except FileNotFoundError:
            return f"{path}: the promised output is missing"
        except (OSError, ValueError) as error:
            return f"{path}: the promised output cannot be read ({error})"
        if empty:
            return f"{path}: the promised {'folder' if folder else 'output'} is empty"
    return ""


def set_aside(step: Step, run_dir: str, *, attempt: int) -> None:
    """Rename what an attempt left that no longer counts, so that it cannot pass for the next one's.

    Only within the run's own folder; what a user keeps elsewhere is not touched.
    """
    for output in step.outputs:
        path = Path(output.path)
        if path.is_relative_to(run_dir) and path.exists():
            path.rename(path.with_name(f"{path.name}.attempt-{attempt}"))


def backoff_s(step: Step, tried: int) -> float:
    """Seconds before the next attempt: doubled each time, with a jitter fixed by the step."""
    jitter = random.Random(f"{step.name}:{tried}").uniform(0.8, 1.2)
    return min(step.backoff_s * 2.0 ** (tried - 1), _BACKOFF_LIMIT_S) * jitter
