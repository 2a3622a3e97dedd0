"""The Slurm backend: a step is a batch job, and its folder, on storage that the nodes share, tells of it.

The command runs under the wrapper of `jobs/wrapper.py`, so that what became of a job is read from its
folder, with accounting and without. Slurm is asked, for all jobs in one call, for what the folder cannot
tell: whether a job still waits, and who ended one that has no record, or was ended by a signal.

A job is announced in its folder before it is submitted, under a name that its key gives. After a crash in
between, the queue is searched for the name; a job that was submitted twice all the same starts once,
because one wrapper only can claim the folder. A native id is the job's key.

Between `gathered` and its end, alike steps are submitted as one array.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from modelyard.core.errors import BackendUnreachable, SubmitError
from modelyard.core.failpoints import failpoint
from modelyard.core.processes import interpreter
from modelyard.jobs.backend import Analysis, BackendSettings, Request
from modelyard.jobs.backends.analysis import explain_logs
from modelyard.jobs.backends.slurm_client import SlurmClient
from modelyard.jobs.backends.slurm_folder import JobFolder, Stillness, Submission, beat, submission_now
from modelyard.jobs.backends.slurm_options import SlurmOptions, options_from
from modelyard.jobs.backends.slurm_script import Place, job_script, submission
from modelyard.jobs.backends.slurm_states import (
    MEANINGS,
    Meaning,
    Row,
    is_clear,
    joined,
    rows_for,
    state_said,
    unknown,
    unrecorded,
)
from modelyard.jobs.backends.slurm_submitting import Submitter, body_of, output_of
from modelyard.jobs.job import JobState, Report
from modelyard.jobs.step import Resources, Step

_LONGEST_NAP_S = 0.25
_ENDING_POLL_S = 1.0


class SlurmBackend:
    """Jobs of a Slurm cluster; passes the backend contract."""

    name = "slurm"

    def __init__(self, settings: BackendSettings, *, options: SlurmOptions | None = None) -> None:
        self._settings = replace(settings, jobs_dir=settings.jobs_dir.absolute())
        self._options = options_from(settings.environment) if options is None else options
        self._place = Place(
            jobs_dir=self._settings.jobs_dir,
            python=self._options.python or interpreter(),
            grace_s=settings.grace_s,
        )
        self._client = SlurmClient(self._options, settings.environment)
        self._submitter = Submitter(self._place, self._options, self._client, settings.environment)
        self._held: dict[str, Resources] = {}
        self._rows: list[Row] = []
        self._asked_at = float("-inf")
        self._still = Stillness()
        self._pressed: dict[str, float] = {}  # key -> when it was first told to end

    # -- what is asked ---------------------------------------------------------------------------------

    def render(self, step: Step) -> Request:
        """The script and the command that submits it; `{key}` stands for the attempt's key."""
        folder = self._place.folder("{key}")
        body = {
            "script": job_script(step, "{key}", place=self._place, options=self._options),
            "submit": submission(folder / "job.sh", folder / "slurm.out", folder)[4:],
            "ssh": self._options.ssh,
            "request": body_of(step, self._settings.grace_s),
        }
        return Request(step=step.name, body=body)

    def fits(self, resources: Resources) -> str:
        """Why a step with these needs can never run under our own limits; the cluster's it tells itself."""
        slots, gpus = self._settings.slots, self._options.gpus
        if slots and _cpus(resources) > slots:
            return f"needs {_cpus(resources)} CPU slots where there are {slots}; lower cpus or raise --jobs"
        if gpus and _gpus(resources) > gpus:
            return f"needs {_gpus(resources)} GPUs where there are {gpus}; lower gpus or raise the option"
        return ""

    def free(self, resources: Resources) -> bool:
        """Whether our limits leave room; without limits there always is, and Slurm queues."""
        slots, gpus = self._settings.slots, self._options.gpus
        cpus = sum(map(_cpus, self._held.values())) + _cpus(resources)
        return (not slots or cpus <= slots) and (
            not gpus or sum(map(_gpus, self._held.values())) + _gpus(resources) <= gpus
        )

    # -- submit and find -------------------------------------------------------------------------------

    def submit(self, step: Step, key: str) -> str:
        """Announce the job and submit it; a key that is announced already is submitted only if nobody did."""
        folder = self._folder(key)
        try:
            announced = folder.submission()
            first = announced is None and self._submitter.announce(step, key)
        except OSError as error:
            raise SubmitError(
                f"{step.name}: could not be written to {folder.path} ({error}); free the disk or mend it"
            ) from error
        if first:
            failpoint("slurm.after_announced")
            self._submitter.send(step, key)
            failpoint("slurm.after_submitted")
        elif announced is not None and self._never_came(folder, announced):
            folder.announce_anew(submission_now(key, None, step.resources))
            self._submitter.send(step, key)
        self._hold(key, folder)
        return key

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Gather what is submitted inside, and submit it at the end, alike steps as one array.

        A step that is refused is FAILED at the next poll; where nobody answers, `poll` tries again.
        """
        with self._submitter.gathered():
            yield

    def find(self, key: str) -> str | None:
        """The key, once the job is submitted, or may be: where Slurm is silent, `poll` will tell."""
        folder = self._folder(key)
        announced = folder.submission()
        if announced is None:
            return None
        try:
            if self._never_came(folder, announced):
                return None
        except BackendUnreachable:
            pass
        self._hold(key, folder)
        return key

    def job_id(self, native_id: str) -> str:
        """Slurm's own number of the job; empty where it is not known."""
        return self._folder(native_id).number()

    # -- watching --------------------------------------------------------------------------------------

    def poll(self, native_ids: Sequence[str]) -> dict[str, Report]:
        """What became of each job; one question to Slurm for all whose folders do not tell."""
        known = {key: self._known(self._folder(key)) for key in native_ids}
        open_ids = [key for key, report in known.items() if report is None]
        fresh = bool(open_ids) and self._look()
        if fresh:
            self._submitter.send_again(self._rows)
        reports = {}
        for key in native_ids:
            report = known[key] or self._judged(self._folder(key), fresh=fresh)
            reports[key] = report
            if report.state.final:
                self._release(key)
        if fresh:
            self._press([key for key in open_ids if not reports[key].state.final])
        return reports

    def cancel(self, native_ids: Sequence[str]) -> None:
        """Note that the jobs are to end and tell Slurm; where it does not hear, `poll` tells it again."""
        told = []
        for key in native_ids:
            folder = self._folder(key)
            if self._known(folder) is None and key not in self._pressed:
                folder.ask_to_end()
                if self._submitter.drop(key) and folder.withdraw():
                    folder.conclude(unrecorded(unknown(key), asked=True, claimed=False, said=""), "")
                else:
                    told.append(key)
        try:
            if told:
                self._look(now=True)
                self._press(told)
        except BackendUnreachable:
            pass  # the note stands, and `poll` says that nobody answers

    def logs(self, native_id: str, stream: str, offset: int = 0) -> tuple[bytes, int]:
        """What the command wrote from an offset on; empty before it began."""
        try:
            with self._folder(native_id).log(stream).open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return b"", offset
        return data, offset + len(data)

    def explain(self, native_id: str, report: Report) -> Analysis:
        """The cause from Slurm's state, the exit record, and the last lines of the logs."""
        folder = self._folder(native_id)
        said = folder.said(partial(output_of, self._place))
        meaning = MEANINGS.get(folder.state() or state_said(said))
        if report.state.final and report.state is not JobState.SUCCEEDED and meaning is Meaning.MEMORY:
            return Analysis(cause="out_of_memory", lines=tuple(said[-3:]) or (report.detail,))
        if report.reason == "lost":
            return Analysis(cause="lost", lines=(*said[-2:], report.detail), retry=True)
        logs = [folder.log("stderr"), folder.log("stdout")]
        return explain_logs(report, [*folder.outputs(partial(output_of, self._place)), *logs])

    def wait(self, timeout_s: float) -> None:
        """Sleep a little: an end is seen in the job's folder, which nobody announces across machines."""
        if timeout_s > 0:
            time.sleep(min(timeout_s, _LONGEST_NAP_S))

    # -- judging ---------------------------------------------------------------------------------------

    def _known(self, folder: JobFolder) -> Report | None:
        """The final report, where the folder alone tells it."""
        report = folder.verdict()
        if report is None:
            record = folder.record()
            report = record if record is not None and self._is_clear(folder, record) else None
        return report

    def _is_clear(self, folder: JobFolder, record: Report) -> bool:
        """Whether the command ended by itself: a step daemon tells of an end that it made.

        A command may heed that with status 0, having saved its state, and has not done its work all the same.
        """
        said = "" if self._options.requeue else state_said(folder.said(partial(output_of, self._place)))
        return is_clear(record) and not said

    def _judged(self, folder: JobFolder, *, fresh: bool) -> Report:
        """What the folder and the last answer of Slurm say together."""
        rows = self._rows_of(folder)
        live = [row for row in rows if row.live]
        record = folder.record()
        if record is not None and self._is_clear(folder, record):
            return record
        claimed = folder.claimed()
        if live and (record is None or live[0].meaning is Meaning.WAITS):
            return _going(folder, live[0], claimed=claimed)
        if not fresh:
            return _going(folder, live[0] if live else None, claimed=claimed)
        if record is not None:
            return self._with_record(folder, record, rows)
        return self._without_record(folder, rows, claimed=claimed)

    def _with_record(self, folder: JobFolder, record: Report, rows: Sequence[Row]) -> Report:
        """The wrapper says that a signal ended it all; who sent it is for Slurm to say."""
        asked = folder.asked_to_end()
        state = self._final(folder, rows).state
        waited_s = self._still.of(f"{folder.path.name} record", "there")
        # While Slurm puts a job back, its queue does not show it for a moment.
        gone_s = self._still.of(f"{folder.path.name} queue", bool(rows))
        starts_again = self._options.requeue and (
            any(row.live for row in rows) or gone_s < self._options.settle_s
        )
        if not asked and (starts_again or (not state and waited_s < self._options.settle_s)):
            return _going(folder, None, claimed=True)
        return folder.conclude(joined(record, state, asked=asked), state)

    def _without_record(self, folder: JobFolder, rows: Sequence[Row], *, claimed: bool) -> Report:
        """Slurm has done with the job and there is no record, or it knows nothing of it."""
        announced = folder.submission()
        key = folder.path.name
        if not rows and (self._submitter.has(key) or _is_on_its_way(folder, announced)):
            return Report(state=JobState.PENDING, detail="waits for the scheduler to take it")
        row = self._final(folder, rows)
        # A claim may be another submission's than the one that ended: its heartbeat tells.
        patience_s = self._options.silence_s if claimed else self._options.settle_s
        still_s = self._still.of(key, (row.state, beat(folder.path)))
        never_began = folder.asked_to_end() and not claimed and row.state
        if still_s < patience_s and not never_began:
            return _going(folder, None, claimed=claimed)
        if not claimed and not folder.withdraw():
            return _going(folder, None, claimed=True)
        said = [*(["it ran"] if folder.allocated() else []), *folder.said(partial(output_of, self._place))]
        report = unrecorded(row, asked=folder.asked_to_end(), claimed=claimed, said=said[-1] if said else "")
        return folder.conclude(replace(report, started_at=folder.started_at()), row.state)

    def _final(self, folder: JobFolder, rows: Sequence[Row]) -> Row:
        """What Slurm says of an end: in the queue, in accounting, or in the job's own output."""
        announced = folder.submission()
        name = announced.name if announced else folder.path.name
        ended = [row for row in rows if not row.live]
        if not rows:
            numbers = sorted({number for number in (folder.number(), folder.allocated()) if number})
            known = self._client.ended(numbers) if numbers else []
            ended = [row for row in known if row.name == name and row.job_id in numbers and not row.live]
        if ended:
            return ended[-1]
        if rows and self._options.requeue:  # what was said may be of an earlier start
            return unknown(name)
        return Row(job_id="", name=name, state=state_said(folder.said(partial(output_of, self._place))))

    # -- asking ----------------------------------------------------------------------------------------

    def _look(self, *, now: bool = False) -> bool:
        """Ask Slurm for its queue, unless it was asked a moment ago; whether it was asked."""
        moment = time.monotonic()
        # Somebody waits for the end of jobs that were told to end.
        pause_s = min(self._options.poll_s, _ENDING_POLL_S) if self._pressed else self._options.poll_s
        if not now and moment - self._asked_at < pause_s:
            return False
        self._rows = self._client.queue()
        self._asked_at = moment
        return True

    def _rows_of(self, folder: JobFolder) -> list[Row]:
        announced = folder.submission()
        if announced is None:
            return []
        return rows_for(self._rows, announced.name, announced.index)

    def _never_came(self, folder: JobFolder, announced: Submission) -> bool:
        """Whether a job was announced by a process that ended before Slurm had it. Raises unreachable."""
        if folder.number() or folder.claimed() or folder.verdict() is not None:
            return False
        if self._submitter.has(folder.path.name) or not announced.interrupted:
            return False
        self._look()
        rows = self._rows_of(folder)
        if rows:
            folder.give_number(rows[-1].job_id)
        return not rows

    def _press(self, keys: Sequence[str]) -> None:
        """Tell Slurm, in one call a kind, of the jobs that are to end; the deaf are left to it."""
        now = time.monotonic()
        gentle: list[Row] = []
        forced: list[Row] = []
        for key in keys:
            folder = self._folder(key)
            if not folder.asked_to_end():
                continue
            first = self._pressed.setdefault(key, now)
            late = now - first > self._settings.grace_s + self._options.settle_s
            (forced if late else gentle).extend(row for row in self._rows_of(folder) if row.live)
        self._client.stop(gentle)
        self._client.stop(forced, kill=True)

    # -- small things ----------------------------------------------------------------------------------

    def _folder(self, key: str) -> JobFolder:
        return JobFolder(self._place.folder(key))

    def _hold(self, key: str, folder: JobFolder) -> None:
        announced = folder.submission()
        if announced is not None and self._known(folder) is None:
            self._held[key] = Resources(**announced.resources)

    def _release(self, key: str) -> None:
        self._held.pop(key, None)
        self._pressed.pop(key, None)
        for name in (key, f"{key} record"):
            self._still.forget(name)


def _going(folder: JobFolder, row: Row | None, *, claimed: bool) -> Report:
    """The report of a job that has not ended."""
    started = claimed and not (row is not None and row.meaning is Meaning.WAITS)
    if started or (row is not None and row.meaning is Meaning.RUNS):
        return Report(state=JobState.RUNNING, started_at=folder.started_at())
    why = f"waits in the queue: {row.reason}" if row is not None and row.reason not in ("", "None") else ""
    return Report(state=JobState.PENDING, detail=why)


def _is_on_its_way(folder: JobFolder, announced: Submission | None) -> bool:
    """Whether some process is about to submit the job."""
    return announced is not None and not folder.number() and not announced.interrupted


def _cpus(resources: Resources) -> int:
    return resources.nodes * resources.cpus


def _gpus(resources: Resources) -> int:
    return resources.nodes * resources.gpus
