"""Executing a run: its outcome, its journal, and stops from outside."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from modelyard.core.errors import PluginError, RunBusy
from modelyard.core.faults import Faults
from modelyard.jobs.job import JobState, Report
from modelyard.jobs.plan import make_plan
from modelyard.jobs.progress import Progress, StepStatus
from modelyard.jobs.step import Output
from modelyard.runs.directory import drive, is_driven
from modelyard.runs.execution import ExecutionOptions, Outcome, judge, open_backend, visible_gpus
from modelyard.verify.journal import verify_journal

S, F, K = StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED


def test_a_run_that_succeeds_is_journalled_from_start_to_end(make_run, make_step, carry_out, yard, tmp_path):
    output = tmp_path / "deep/made"
    directory = make_run(
        make_step("a", f"echo x > {output}", outputs=(Output(path=str(output)),)),
        make_step("b", needs=("a",)),
    )
    assert carry_out(directory) == ("succeeded", {"a": "SUCCEEDED", "b": "SUCCEEDED"})
    kinds = [e.kind for e in yard.journal.read()]
    assert kinds == ["run.created", "run.started", *["job.intent", "job.finished"] * 2, "run.ended"]
    ended = list(yard.journal.read())[-1]
    assert ended.data == {"outcome": "succeeded", "statuses": {"a": "SUCCEEDED", "b": "SUCCEEDED"}}
    assert verify_journal(yard.journal.folder).faults == ()
    assert not is_driven(directory.path)


def test_a_failed_run_can_be_taken_up(make_run, make_step, carry_out, tmp_path):
    directory = make_run(
        make_step("a", "echo a >> ran"),
        make_step("b", "echo b >> ran; [ -e mended ]", needs=("a",)),
        make_step("c", "echo c >> ran", needs=("b",)),
    )
    assert carry_out(directory) == ("failed", {"a": "SUCCEEDED", "b": "FAILED", "c": "SKIPPED"})
    (tmp_path / "mended").touch()
    assert carry_out(directory)[0] == "succeeded"
    assert (tmp_path / "ran").read_text().split() == ["a", "b", "b", "c"]


def test_two_cannot_execute_one_run(make_run, make_step, carry_out):
    directory = make_run(make_step("a"))
    with drive(directory), pytest.raises(RunBusy):
        carry_out(directory)


def test_observers_are_told(make_run, make_step, carry_out):
    told = []
    directory = make_run(make_step("a"))
    carry_out(
        directory, observers=(lambda i: told.append(i.status.value), lambda i: told.append(i.step.name))
    )
    assert told[-2:] == ["SUCCEEDED", "a"]


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "cancel"])
def test_a_stop_from_outside_ends_the_jobs_and_leaves_a_resumable_run(
    make_run, make_step, carry_out, yard, tmp_path, wait_until, how
):
    directory = make_run(make_step("a", "echo $$ > pid; while [ ! -e go ]; do sleep 0.01; done"))
    before = signal.getsignal(signal.SIGINT)

    def ask():
        wait_until((tmp_path / "pid").exists)
        if how == "cancel":
            directory.cancel_path.touch()
        else:
            os.kill(os.getpid(), getattr(signal, how))

    asker = threading.Thread(target=ask)
    asker.start()
    outcome = carry_out(directory)
    asker.join()
    assert outcome == ("cancelled", {"a": "CANCELLED"})
    assert signal.getsignal(signal.SIGINT) is before
    assert [e.data["why"] for e in yard.journal.read() if e.kind == "run.stopping"] == [how]
    (tmp_path / "go").touch()
    assert carry_out(directory) == ("succeeded", {"a": "SUCCEEDED"})


MEMBERS = {"a": "x", "b": "y", "pool": None}


@pytest.mark.parametrize(
    ("statuses", "continued", "outcome"),
    [
        ({"a": S, "b": S, "pool": S}, False, Outcome.SUCCEEDED),
        ({"a": S, "b": F, "pool": S}, True, Outcome.PARTIAL),
        ({"a": S, "b": K, "pool": S}, True, Outcome.PARTIAL),
        ({"a": S, "b": F, "pool": S}, False, Outcome.FAILED),
        ({"a": F, "b": F, "pool": S}, True, Outcome.FAILED),
        ({"a": S, "b": S, "pool": F}, True, Outcome.FAILED),
    ],
)
def test_how_a_run_ended(make_step, tmp_path, statuses, continued, outcome):
    steps = [make_step(name, member=member) for name, member in MEMBERS.items()]
    progress = Progress(make_plan("p", steps, run_dir=tmp_path, faults=Faults(file="f")))
    for name, status in statuses.items():
        progress[name].status = status
    assert judge(progress, stopped=False, continued=continued) is outcome
    assert judge(progress, stopped=True, continued=continued) is Outcome.CANCELLED


def test_members_that_are_not_required_do_not_count(make_step, tmp_path):
    steps = [make_step("a", member="x"), make_step("b", member="y", required=False)]
    progress = Progress(make_plan("p", steps, run_dir=tmp_path, faults=Faults(file="f")))
    progress["a"].status, progress["b"].status = S, F
    assert judge(progress, stopped=False, continued=False) is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("environment", "gpus"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, ("0", "2")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f,MIG-1"}, ("GPU-8f", "MIG-1")),
    ],
)
def test_only_visible_gpus_are_given_out(environment, gpus):
    assert visible_gpus(environment) == gpus


def test_an_unknown_backend_is_a_plugin_error(tmp_path):
    with pytest.raises(PluginError, match="'nowhere'"):
        open_backend(ExecutionOptions(backend="nowhere"), tmp_path)


def test_options_reach_the_backend(tmp_path, make_step):
    backend = open_backend(ExecutionOptions(slots=3, environment={"PATH": "/bin"}), tmp_path / "jobs")
    assert backend.name == "local"
    assert "there are 3" in backend.fits(make_step().resources.__class__(cpus=4))
    native_id = backend.submit(make_step(), "key")
    assert native_id == str(tmp_path / "jobs/key")
    while backend.poll([native_id])[native_id] in (
        Report(state=JobState.PENDING),
        Report(state=JobState.RUNNING),
    ):
        backend.wait(0.05)
