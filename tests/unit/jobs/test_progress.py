"""Progress: where steps stand, as a replay of the journal."""

from __future__ import annotations

import dataclasses

import pytest

from modelyard.core.journal import Entry
from modelyard.jobs.job import JobState, Report, report_record
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepStatus, entries_of_run
from modelyard.jobs.step import Step

PLAN = Plan(
    name="p",
    run_dir="/run",
    steps=tuple(Step(name=name, argv=("true",), cwd="/") for name in ("a", "b", "c")),
)


def entry(kind: str, **data: object) -> Entry:
    return Entry(seq=1, time="", kind=kind, run="r", data=data, digest="", end=0)


def intent(step: str, attempt: int, *, digest: str | None = None) -> Entry:
    own = Progress(PLAN)[step].digest
    return entry(
        "job.intent",
        key=f"{step}-{attempt}",
        step=step,
        step_digest=digest or own,
        attempt=attempt,
        backend="local",
    )


def finished(step: str, attempt: int, state: JobState, **more: object) -> Entry:
    record = report_record(Report(state=state))
    return entry("job.finished", key=f"{step}-{attempt}", step=step, **record, **more)


def replayed(*entries: Entry) -> Progress:
    progress = Progress(PLAN)
    progress.replay(entries)
    return progress


def test_a_new_run_waits_for_everything():
    progress = replayed()
    assert [item.step.name for item in progress.with_status(StepStatus.WAITING)] == ["a", "b", "c"]
    assert progress["a"].last is None
    assert progress.open_jobs() == []


def test_a_finished_attempt_is_its_steps_standing():
    progress = replayed(
        intent("a", 1),
        intent("b", 1),
        finished("a", 1, JobState.SUCCEEDED),
        finished("b", 1, JobState.FAILED),
    )
    assert progress["a"].status is StepStatus.SUCCEEDED
    assert progress["b"].status is StepStatus.WAITING  # it may be tried again
    assert progress["b"].last.state is JobState.FAILED
    assert progress.open_jobs() == []


def test_announced_attempts_are_open_until_their_end_is_known():
    progress = replayed(intent("a", 1), finished("a", 1, JobState.LOST), intent("a", 2), intent("b", 1))
    assert [job.key for _, job in progress.open_jobs()] == ["a-2", "b-1"]
    assert [job.attempt for job in progress["a"].jobs] == [1, 2]


def test_a_step_that_runs_again_has_not_succeeded():
    """Else, after a crash, what depends on the attempt under way would be taken as done."""
    progress = replayed(intent("a", 1), finished("a", 1, JobState.SUCCEEDED), intent("a", 2))
    assert progress["a"].status is StepStatus.WAITING
    progress.replay([finished("a", 2, JobState.SUCCEEDED)])
    assert progress["a"].status is StepStatus.SUCCEEDED


def test_a_success_that_was_invalidated_counts_no_more():
    told = [intent("a", 1), finished("a", 1, JobState.SUCCEEDED), entry("step.invalidated", step="a", why="")]
    progress = replayed(*told, entry("step.invalidated", step="b", why=""))
    assert [item.status for item in progress] == [StepStatus.WAITING] * 3
    assert [item.invalidated for item in progress] == [True, False, False]
    progress.replay([intent("a", 2)])
    assert not progress["a"].invalidated
    progress.replay([finished("a", 2, JobState.SUCCEEDED)])
    assert progress["a"].status is StepStatus.SUCCEEDED and not progress["a"].invalidated


def test_a_success_of_another_step_digest_counts_for_its_number_only():
    progress = replayed(intent("a", 1, digest="old"), finished("a", 1, JobState.SUCCEEDED))
    assert progress["a"].status is StepStatus.WAITING
    assert len(progress["a"].jobs) == 1


def test_entries_of_other_things_are_passed_over():
    progress = replayed(
        entry("run.started", pid=1),
        entry("job.intent", key="z-1", step="z", step_digest="", attempt=1, backend="local"),
        finished("a", 1, JobState.SUCCEEDED),
    )
    assert [item.status for item in progress] == [StepStatus.WAITING] * 3


def test_replaying_in_pieces_is_replaying_at_once():
    entries = [
        intent("a", 1), finished("a", 1, JobState.FAILED), intent("b", 1), intent("a", 2),
        finished("b", 1, JobState.SUCCEEDED), finished("a", 2, JobState.SUCCEEDED),
    ]  # fmt: skip
    pieces = Progress(PLAN)
    for one in entries:
        pieces.replay([one])
    assert [dataclasses.asdict(i) for i in pieces] == [dataclasses.asdict(i) for i in replayed(*entries)]


@pytest.mark.parametrize("status", StepStatus)
def test_what_has_ended(status):
    assert status.ended == (status not in (StepStatus.WAITING, StepStatus.RUNNING))


def test_the_end_of_an_attempt_tells_where_its_logs_are():
    progress = replayed(intent("a", 1), finished("a", 1, JobState.SUCCEEDED, native_id="job-7"))
    assert progress["a"].last.native_id == "job-7"
    older = replayed(intent("a", 1), finished("a", 1, JobState.SUCCEEDED))  # written before ends told it
    assert older["a"].last.native_id == ""


def test_a_step_that_is_taken_in_later_is_as_one_of_the_plan():
    progress = Progress(PLAN)
    late = Step(name="late", argv=("true",), cwd="/")
    item = progress.add(late)
    assert item.status is StepStatus.WAITING and item.jobs == []
    assert [each.step.name for each in progress] == ["a", "b", "c", "late"]
    whole = Progress(dataclasses.replace(PLAN, steps=(*PLAN.steps, late)))
    assert item.digest == whole["late"].digest
    progress.replay([dataclasses.replace(intent("a", 1), data={**intent("a", 1).data, "step": "late"})])
    assert [found.step.name for found, _ in progress.open_jobs()] == ["late"]


def test_a_step_that_is_dropped_is_forgotten():
    progress = replayed(intent("a", 1), finished("a", 1, JobState.SUCCEEDED))
    progress.drop("a")
    assert [item.step.name for item in progress] == ["b", "c"]
    progress.replay([intent("a", 2)])
    assert progress.open_jobs() == []


def test_what_a_run_was_before_its_folder_was_made_anew_does_not_count():
    def created(run, folder):
        return dataclasses.replace(entry("run.created", dir=folder), run=run)

    old, new = intent("a", 1), intent("b", 1)
    other = dataclasses.replace(old, run="other")
    journal = [created("r", "/run"), old, other, created("r", "/run"), created("other", "/run"), new]
    assert entries_of_run(journal, run="r", run_dir="/run") == [journal[3], new]
    elsewhere = [journal[0], old, created("r", "/elsewhere"), new]
    assert entries_of_run(elsewhere, run="r", run_dir="/run") == elsewhere
    assert entries_of_run([old, new], run="r", run_dir="/run") == [old, new]
