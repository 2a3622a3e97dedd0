"""The SDK backend: jobs of any object with create_job, get_job_status, get_job_logs, get_failure_analysis.

Such an object keeps no promise about being asked twice, about a caller that dies, about jobs that it no
longer knows. The ledger in the folder of jobs (`sdk_ledger`) keeps them: a job is announced there before
it is asked for, under a key that the call carries to the platform as well (`MODELYARD_JOB_KEY`, and in
the command's text). When a launch was interrupted, the SDK's list of jobs is searched for the key;
where it has none, the job is LOST and says so, and is not launched again.

The SDK may also have `cancel_job(job_id)`, `list_jobs()`, `get_job_errors(job_id, tail=None)` where it
keeps the standard error apart (otherwise all that a job prints counts as its standard output), and in
place of `create_job` a `create_python_job` for steps that are Python scripts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.errors import BackendUnreachable, SubmitError
from modelyard.jobs.backend import Analysis, BackendSettings, Request
from modelyard.jobs.backends import sdk_logs
from modelyard.jobs.backends.local import MARK
from modelyard.jobs.backends.sdk_calls import Call, CallOf, keyed, script_call, shell_call, shown_call
from modelyard.jobs.backends.sdk_client import Client, NotCreated, Sdk
from modelyard.jobs.backends.sdk_ledger import Entry, Intent, Seen, is_launching
from modelyard.jobs.backends.sdk_reports import Stop, analysis_of, judged, stop_is_late
from modelyard.jobs.job import JobState, Report
from modelyard.jobs.step import Resources, Step

_CANCEL_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkOptions:
    """How an SDK is used."""

    # Image of steps that name none.
    image: str = ""
    # Further keyword arguments of every create call, forwarded as they are; they win over our own.
    platform_kwargs: Mapping[str, Any] = field(default_factory=dict)
    # How a step becomes a call; None: as a shell command, or as a Python script.
    call: CallOf | None = None
    # The longest sleep between two looks.
    poll_s: float = 5.0
    # For how long a job may be unknown, or asked to stop in vain, before it is given up as LOST.
    unknown_s: float = 900.0
    # How long after an interrupted launch the platform's list is still waited for.
    settle_s: float = 10.0


class SdkBackend:
    """Jobs of somebody else's SDK; passes the backend contract. A native id is the job's key."""

    name = "sdk"

    def __init__(
        self,
        settings: BackendSettings,
        sdk: Sdk,
        *,
        options: SdkOptions | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._settings, self._client, self._clock = settings, Client(sdk), clock
        self._options = options or SdkOptions()
        self._held: dict[str, tuple[int, tuple[str, ...]]] = {}  # key -> CPU slots, ids of GPUs

    # -- what is asked ---------------------------------------------------------------------------------

    def render(self, step: Step) -> Request:
        """The call of the SDK; the key and the GPUs are chosen at submission."""
        return Request(step=step.name, body=shown_call(self._call(step, self._variables(step)), step))

    def fits(self, resources: Resources) -> str:
        """Why a step with these needs can never run; what the platform itself can do is for it to say."""
        slots, gpus = self._settings.slots, self._settings.gpus
        if slots and resources.cpus > slots:
            return f"needs {resources.cpus} CPU slots where there are {slots}; lower cpus or raise --jobs"
        if gpus and resources.gpus > len(gpus):
            return f"needs {resources.gpus} GPUs where there are {len(gpus)}"
        return ""

    def free(self, resources: Resources) -> bool:
        """Whether enough slots and GPUs are not held by jobs that run; without a number there is no limit."""
        held = sum(cpus for cpus, _ in self._held.values())
        slots = self._settings.slots
        return (not slots or held + resources.cpus <= slots) and (
            not self._settings.gpus or resources.gpus <= len(self._free_gpus())
        )

    # -- submit and find -------------------------------------------------------------------------------

    def submit(self, step: Step, key: str) -> str:
        """Announce the job and ask for it; a key that is announced already is only taken up."""
        entry = self._entry(key)
        intent = entry.intent() or self._begin(entry, step)
        if entry.ended() is None:
            self._hold(intent)
        return key

    def find(self, key: str) -> str | None:
        """The key, once the job has been announced; whether it was launched is for `poll` to tell."""
        entry = self._entry(key)
        intent = entry.intent()
        if intent is None:
            return None
        if entry.ended() is None:
            self._hold(intent)
        return key

    def job_id(self, native_id: str) -> str:
        """The SDK's own id of the job; empty where it is not known."""
        return self._entry(native_id).job_id()

    # -- watching --------------------------------------------------------------------------------------

    def poll(self, native_ids: Sequence[str]) -> dict[str, Report]:
        """What became of each job; the logs of one that has ended are copied before its end is recorded."""
        reports = {}
        for native_id in native_ids:
            entry = self._entry(native_id)
            report = entry.ended() or self._look(entry)
            reports[native_id] = report
            if report.state.final:
                self._held.pop(native_id, None)
        return reports

    def cancel(self, native_ids: Sequence[str]) -> None:
        """Ask for the end of the jobs, as long as the SDK takes to be told; unheard, `poll` asks again."""
        for native_id in native_ids:
            entry = self._entry(native_id)
            if entry.ended() is None and not entry.seen().stop_asked_at:
                self._stop(entry, "cancelled")

    def logs(self, native_id: str, stream: str, offset: int = 0) -> tuple[bytes, int]:
        """Bytes of our copy, which is brought up to date first while the job runs."""
        entry = self._entry(native_id)
        if entry.ended() is None and entry.job_id():
            self._client.copy_logs(entry, entry.job_id(), final=False)
        return sdk_logs.read_from(entry.log(stream), offset)

    def explain(self, native_id: str, report: Report) -> Analysis:
        """The cause from our copy of the logs and from the SDK's own analysis."""
        entry = self._entry(native_id)
        return analysis_of(report, [entry.log("stderr"), entry.log("stdout")], entry.analysis())

    def wait(self, timeout_s: float) -> None:
        """Sleep; an SDK does not tell when something has changed."""
        if timeout_s > 0:
            time.sleep(min(timeout_s, self._options.poll_s))

    # -- launching -------------------------------------------------------------------------------------

    def _begin(self, entry: Entry, step: Step) -> Intent:
        gpus = self._free_gpus()[: step.resources.gpus]
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if self._settings.gpus else {}
        call = keyed(self._call(step, {**self._variables(step), **visible, MARK: entry.key}), entry.key)
        limits = [t for t in (step.timeout_s, step.resources.wall_time_s) if t is not None]
        intent = Intent(
            key=entry.key, step=step.name, request=shown_call(call, step), cpus=step.resources.cpus,
            gpu_ids=gpus, timeout_s=min(limits, default=None), announced_at=stamp(self._clock()),
        )  # fmt: skip
        try:
            announced = entry.announce(intent)
        except OSError as error:
            raise SubmitError(
                f"{step.name}: could not be announced in {self._settings.jobs_dir} ({error}); "
                "free the disk or mend it"
            ) from error
        if announced:
            self._launch(entry, intent, call)
        return entry.intent() or intent

    def _launch(self, entry: Entry, intent: Intent, call: Call) -> None:
        try:
            job_id = self._client.create(call)
        except NotCreated as error:
            job_id = error.job_id or self._client.listed(entry.key)
            if not job_id:
                entry.refuse()
                raise SubmitError(
                    f"{intent.step}: {self._client.name} refused the job ({error}); "
                    "mend the step, or the platform's arguments"
                ) from error
        except BaseException:
            entry.give_up(intent)
            raise
        if not job_id:
            entry.give_up(intent)
            raise BackendUnreachable(
                f"{intent.step}: {self._client.name} gave no id of the job; look for {entry.key} there"
            )
        entry.name(job_id, stamp(self._clock()))

    # -- looking ---------------------------------------------------------------------------------------

    def _look(self, entry: Entry) -> Report:
        job_id = entry.job_id() or self._sought(entry)
        if not job_id:
            return entry.ended() or Report(state=JobState.PENDING)
        meaning, message = self._client.status(job_id)
        if meaning in ("done", "failed", "cancelled", "gone"):
            return self._ended(entry, job_id, meaning, message)
        return self._going(entry, meaning, message)

    def _sought(self, entry: Entry) -> str:
        """The id of a job whose launch was interrupted; LOST where the platform does not show it."""
        intent = entry.intent()
        if intent is None:
            return ""
        age = self._age(intent.announced_at)
        if age < self._options.unknown_s and (is_launching(intent) or age < self._options.settle_s):
            return ""
        job_id = self._client.listed(entry.key)
        if job_id:
            entry.name(job_id, stamp(self._clock()))
            return job_id
        listed = self._client.has("list_jobs")
        why = "does not list it" if listed else "cannot list its jobs"
        detail = f"its launch was interrupted and the platform {why}; look there for {MARK}={entry.key}"
        entry.end(Report(state=JobState.LOST, reason="lost" if listed else "unclear", detail=detail), {})
        return ""

    def _ended(self, entry: Entry, job_id: str, meaning: str, message: str) -> Report:
        """Record the end: first the logs and the analysis, which the platform may forget."""
        self._client.copy_logs(entry, job_id, final=True)
        analysis = self._client.analysis(job_id) if meaning == "failed" else {}
        seen = entry.seen()
        logs = [entry.log("stderr"), entry.log("stdout")]
        stop = Stop(why=seen.stop_why, limit_s=_limit(entry))
        report = judged(meaning, message, analysis, stop=stop, logs=logs)
        now = stamp(self._clock())
        started_at = seen.running_since or entry.named_at() or now
        return entry.end(replace(report, started_at=started_at, finished_at=now), analysis)

    def _going(self, entry: Entry, meaning: str, message: str) -> Report:
        """A job that has not ended: note what is new, and end it where a limit has passed."""
        was = entry.seen()
        seen = _seen_as(meaning, was, stamp(self._clock()))
        if seen != was:
            entry.see(seen)
        lasted = self._age(seen.unknown_since)
        if lasted >= self._options.unknown_s:
            detail = f"the platform has not known for {lasted:.0f} s what became of it ({message})"
            lost = Report(state=JobState.LOST, reason="unclear", detail=detail)
            return entry.end(replace(lost, started_at=seen.running_since or None), {})
        late = self._press(entry, seen)
        state = JobState.RUNNING if seen.running_since else JobState.PENDING
        return late or Report(state=state, detail=message, started_at=seen.running_since or None)

    def _press(self, entry: Entry, seen: Seen) -> Report | None:
        """Ask a job to stop that has run too long, or ask again; the report of one that never does."""
        limit_s = _limit(entry)
        if not seen.stop_asked_at:
            if limit_s is not None and seen.running_since and self._age(seen.running_since) >= limit_s:
                self._stop(entry, "timeout")
            return None
        if self._age(seen.stop_asked_at) >= self._options.unknown_s:
            report = stop_is_late(Stop(why=seen.stop_why, limit_s=limit_s))
            now = stamp(self._clock())
            return entry.end(replace(report, started_at=seen.running_since or None, finished_at=now), {})
        if self._age(seen.stop_again_at) >= _CANCEL_AGAIN_S:
            self._stop(entry, seen.stop_why)
        return None

    def _stop(self, entry: Entry, why: str) -> None:
        """Note that the job is to end, then tell the platform, so that a stop survives both our ends."""
        seen, now = entry.seen(), stamp(self._clock())
        first, why = seen.stop_asked_at or now, seen.stop_why or why
        entry.see(replace(seen, stop_asked_at=first, stop_again_at=now, stop_why=why))
        if entry.job_id():
            self._client.cancel(entry.job_id())

    # -- small things ----------------------------------------------------------------------------------

    def _call(self, step: Step, variables: Mapping[str, str]) -> Call:
        if self._options.call is not None:
            call = self._options.call(step)
        elif not self._client.has("create_job") and self._client.has("create_python_job"):
            call = script_call(step)
        else:
            call = shell_call(step, self._options.image)
        platform = dict(self._options.platform_kwargs)
        merged = {**platform.pop("env_vars", {}), **call.arguments.get("env_vars", {}), **variables}
        return replace(call, arguments={**call.arguments, **platform, "env_vars": merged})

    def _variables(self, step: Step) -> dict[str, str]:
        """What the command is to see beyond the platform's own variables."""
        secrets = {n: self._settings.environment[n] for n in step.secrets if n in self._settings.environment}
        seed = {} if step.seed is None else {"MODELYARD_SEED": str(step.seed)}
        own = {"MODELYARD_STEP": step.name, "MODELYARD_CPUS": str(step.resources.cpus)}
        return {**secrets, **seed, **step.env, **own}

    def _entry(self, key: str) -> Entry:
        return Entry(self._settings.jobs_dir / key)

    def _hold(self, intent: Intent) -> None:
        self._held[intent.key] = (intent.cpus, intent.gpu_ids)

    def _free_gpus(self) -> tuple[str, ...]:
        busy = {gpu for _, gpus in self._held.values() for gpu in gpus}
        return tuple(gpu for gpu in self._settings.gpus if gpu not in busy)

    def _age(self, since: str) -> float:
        return (self._clock() - datetime.fromisoformat(since)).total_seconds() if since else 0.0


def _limit(entry: Entry) -> float | None:
    intent = entry.intent()
    return None if intent is None else intent.timeout_s


def _seen_as(meaning: str, seen: Seen, now: str) -> Seen:
    """What is known of a job after another look at it."""
    if meaning == "unknown":
        return replace(seen, unknown_since=seen.unknown_since or now)
    running_since = seen.running_since or (now if meaning == "running" else "")
    return replace(seen, unknown_since="", running_since=running_since)
