"""Old versions of what steps left: set aside while a new one is made, and put back where that fails.

`set_aside` of the runner names them `<name>.attempt-<n>`; here they are named alike. All that is done
here may be done again after a crash in its middle. A version that was put back is an attempt of its
own in the journal, which ran nothing (`reason` "restored") and stands for the one whose files these are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from modelyard.core.digests import Fingerprints
from modelyard.core.journal import Draft
from modelyard.jobs.job import Job, JobState, Report, job_key, report_record
from modelyard.jobs.progress import StepProgress, StepStatus
from modelyard.jobs.runner import RunName, missing_output
from modelyard.jobs.step import Step

RESTORED = "restored"


def put_aside(step: Step, run_dir: str, *, attempt: int) -> None:
    """Set aside what attempt n left, as far as that has not been done."""
    for path in _within(step, run_dir):
        aside = _aside(path, attempt)
        if path.exists() and not aside.exists():
            path.rename(aside)


def put_back(item: StepProgress, run_dir: str, *, attempt: int) -> bool:
    """Put back what attempt n had left in place of what came after; whether all of it is there again."""
    newest = len(item.jobs)
    for path in _within(item.step, run_dir):
        aside = _aside(path, attempt)
        if not aside.exists():
            continue
        if path.exists() and newest > attempt:
            path.rename(_aside(path, newest))
        if not path.exists():
            aside.rename(path)
    kept = len(list(_within(item.step, run_dir))) == len(item.step.outputs) or newest == attempt
    return kept and not missing_output(item.step)


def restored_drafts(item: StepProgress, name: RunName, *, attempt: int) -> list[Draft]:
    """The entries by which a version that was put back is the one that counts; none where it does already.

    `item` stands as views have it, where a step that was invalidated waits. The inputs are those of the
    attempt that failed, or, where there was none, those of now: the version stands in spite of them,
    until they change again.
    """
    last, first = item.last, item.jobs[attempt - 1]
    if last is None or (item.status is StepStatus.SUCCEEDED and last.attempt == attempt):
        return []
    number = len(item.jobs) + 1
    key = job_key(yard=name.yard, run=name.run, step=item.step.name, step_digest=item.digest, attempt=number)
    report = replace(
        Report(state=JobState.SUCCEEDED, reason=RESTORED),
        detail=f"what attempt {attempt} left stands again",
        started_at=first.report.started_at,
        finished_at=first.report.finished_at,
    )
    said = {"key": key, "step": item.step.name, "attempt": number}
    fingerprints = Fingerprints()
    now = {path: fingerprints.of(path) for path in last.inputs}
    inputs = dict(last.inputs) if last.attempt > attempt else now
    begun = {"step_digest": item.digest, "backend": first.backend, "inputs": inputs}
    return [
        Draft(kind="job.intent", run=name.run, data={**said, **begun}),
        Draft(kind="job.finished", run=name.run, data={**said, "native_id": "", **report_record(report)}),
    ]


def forget_older(steps: Sequence[Step], run_dir: str, *, keep: int) -> None:
    """Delete what was set aside but the newest `keep` versions of each output; for when no ask is open."""
    declared = {output.path for step in steps for output in step.outputs}
    for step in steps:
        for path in _within(step, run_dir):
            for version in sorted(_versions(path), reverse=True)[keep:]:
                old = _aside(path, version)
                if str(old) in declared:
                    continue
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
                else:
                    old.unlink()


def is_restored(job: Job) -> bool:
    """Whether this attempt only put an older version back."""
    return job.report.reason == RESTORED


def _within(step: Step, run_dir: str) -> Iterator[Path]:
    for output in step.outputs:
        path = Path(output.path)
        if path.is_relative_to(run_dir):
            yield path


def _versions(path: Path) -> Iterator[int]:
    """The attempts whose output was set aside beside a path."""
    mark = f"{path.name}.attempt-"
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        number = entry.name.removeprefix(mark)
        if number != entry.name and number.isascii() and number.isdecimal():
            yield int(number)


def _aside(path: Path, attempt: int) -> Path:
    return path.with_name(f"{path.name}.attempt-{attempt}")
