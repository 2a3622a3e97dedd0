"""Views: what people see is what the journal tells, whatever happened on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import RunNotFound
from modelyard.jobs.step import Output
from modelyard.runs.directory import drive
from modelyard.runs.view import StepView, estimate_left_s, find_run, replayed, view_run


def statuses(yard):
    view = view_run(yard, find_run(yard, None))
    return view.state, {step.name: step.status for step in view.steps}


def test_runs_are_found_by_name_by_its_beginning_or_as_the_newest(make_run, make_step, yard):
    with pytest.raises(RunNotFound, match="has no run yet"):
        find_run(yard, None)
    for name in ("night-1", "night-2", "day"):
        make_run(make_step("a"), run=name)
    assert find_run(yard, None).run == "day"
    assert find_run(yard, "night-1").run == "night-1"
    assert find_run(yard, "d").run == "day"
    with pytest.raises(RunNotFound, match="'night' could be several runs"):
        find_run(yard, "night")
    with pytest.raises(RunNotFound, match=r"'noon' is not a run .*night-1, night-2, day"):
        find_run(yard, "noon")


def test_a_name_that_begins_another_is_itself(make_run, make_step, yard):
    make_run(make_step("a"), run="night")
    make_run(make_step("a"), run="night-2")
    assert find_run(yard, "night").run == "night"


def test_a_run_is_seen_before_while_and_after(make_run, make_step, carry_out, yard):
    directory = make_run(make_step("a"), make_step("b", "exit 3"))
    assert statuses(yard) == ("planned", {"a": "WAITING", "b": "WAITING"})
    with drive(directory):
        assert statuses(yard)[0] == "running"
    carry_out(directory)
    assert statuses(yard) == ("failed", {"a": "SUCCEEDED", "b": "FAILED"})
    view = view_run(yard, find_run(yard, None))
    assert (view.done, view.total, view.left_s) == (2, 2, None)
    failed = view.steps[1]
    assert (failed.attempts, failed.note) == (1, "exit status 3")
    assert failed.seconds >= 0
    assert json.loads(json.dumps(view.record()))["steps"][1]["status"] == "FAILED"


def test_steps_that_were_skipped_and_then_succeeded_have_succeeded(
    make_run, make_step, carry_out, yard, tmp_path
):
    directory = make_run(make_step("a", "[ -e mended ]"), make_step("b", needs=("a",)))
    carry_out(directory)
    assert statuses(yard) == ("failed", {"a": "FAILED", "b": "SKIPPED"})
    assert view_run(yard, find_run(yard, None)).steps[1].note == "needs a, which did not succeed"
    (tmp_path / "mended").touch()
    carry_out(directory)
    assert statuses(yard) == ("succeeded", {"a": "SUCCEEDED", "b": "SUCCEEDED"})


def test_steps_that_ran_again_because_an_output_had_gone_have_succeeded(
    make_run, make_step, carry_out, yard, tmp_path
):
    path = tmp_path / "made"
    directory = make_run(
        make_step("a", f"echo x > {path}", outputs=(Output(path=str(path)),)), make_step("b", needs=("a",))
    )
    carry_out(directory)
    path.unlink()
    carry_out(directory)
    assert statuses(yard) == ("succeeded", {"a": "SUCCEEDED", "b": "SUCCEEDED"})
    assert [len(item.jobs) for item in replayed(directory, yard.journal)] == [2, 2]


def test_the_view_agrees_with_the_runner_after_every_invocation(
    make_run, make_step, carry_out, yard, tmp_path
):
    directory = make_run(
        make_step("a", "echo >> tries; [ $(wc -l < tries) -ge 2 ]"),
        make_step("b", "[ -e mended ]", after=("a",)),
        make_step("c", needs=("a", "b")),
        make_step("d", needs=("c",)),
    )
    for invocation in range(4):
        if invocation == 2:
            (tmp_path / "mended").touch()
        outcome, told = carry_out(directory, continue_on_error=True)
        assert statuses(yard) == (outcome, told)
    assert outcome == "succeeded"


# -- how long it may take ------------------------------------------------------------------------------


def seen(name, status, seconds=None):
    return StepView(
        name=name,
        status=status,
        attempts=1,
        started_at=None,
        seconds=seconds,
        cpu_s=None,
        note="",
        folder=None,
    )


def test_nothing_is_foretold_before_anything_has_ended():
    assert estimate_left_s([seen("a", "RUNNING", 5.0), seen("b", "WAITING")]) is None
    assert estimate_left_s([seen("a", "FAILED", 5.0)]) is None


def test_a_step_is_expected_to_take_as_long_as_its_kind():
    steps = [
        seen("train/a", "SUCCEEDED", 10.0), seen("train/b", "SUCCEEDED", 30.0),
        seen("predict/a", "SUCCEEDED", 1.0),
        seen("train/c", "WAITING"), seen("predict/b", "WAITING"), seen("report", "WAITING"),
    ]  # fmt: skip
    assert estimate_left_s(steps) == 20.0 + 1.0 + 10.0


def test_what_is_left_is_shared_by_as_many_as_run():
    steps = [
        seen("t/a", "SUCCEEDED", 10.0),
        seen("t/b", "RUNNING", 4.0),
        seen("t/c", "RUNNING", 0.0),
        seen("t/d", "WAITING"),
    ]
    assert estimate_left_s(steps) == (6.0 + 10.0 + 10.0) / 2


def test_the_longest_that_runs_is_waited_for():
    steps = [seen("t/a", "SUCCEEDED", 10.0), seen("t/b", "RUNNING", 1.0), seen("t/c", "RUNNING", 9.0)]
    assert estimate_left_s(steps) == 9.0


@given(
    st.lists(
        st.builds(
            seen,
            st.sampled_from(["t/a", "t/b", "p/a", "r"]),
            st.sampled_from(["SUCCEEDED", "RUNNING", "WAITING", "FAILED", "SKIPPED"]),
            st.none() | st.floats(0, 1e6),
        )
    )
)
def test_an_estimate_is_never_negative_and_is_nought_when_nothing_is_left(steps):
    left = estimate_left_s(steps)
    assert left is None or left >= 0
    if left and left > 0:
        assert {"RUNNING", "WAITING"} & {s.status for s in steps}


def test_the_moment_may_be_given(make_run, make_step, yard, carry_out):
    carry_out(make_run(make_step("a")))
    later = datetime(2100, 1, 1, tzinfo=UTC)
    assert view_run(yard, find_run(yard, None), now=later).steps[0].seconds < 3600
