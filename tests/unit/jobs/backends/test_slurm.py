"""The Slurm backend where things go wrong: a silent scheduler, interrupted submissions, lost nodes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.jobs.backends.slurm_stand_in import StandIn

from modelyard.core.errors import BackendUnreachable, SubmitError
from modelyard.jobs.backend import BackendSettings
from modelyard.jobs.backends.slurm import SlurmBackend
from modelyard.jobs.backends.slurm_folder import JobFolder, Stillness
from modelyard.jobs.backends.slurm_options import SlurmOptions
from modelyard.jobs.job import JobState
from modelyard.jobs.step import Resources

QUICK = SlurmOptions(poll_s=0.0, settle_s=0.05, silence_s=0.15)
KEY = "train-one-1-0123456789abcdef"
Open = Callable[..., SlurmBackend]


@pytest.fixture
def cluster(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "slurm")


@pytest.fixture
def opened(tmp_path: Path, cluster: StandIn) -> Open:
    """Opens backends over one folder of jobs, as processes that come one after another would."""

    def open_one(
        environment: dict[str, str] | None = None, *, slots: int | None = None, **options: Any
    ) -> SlurmBackend:
        settings = BackendSettings(
            jobs_dir=tmp_path / "jobs",
            environment={**cluster.environment, **(environment or {})},
            slots=slots,
            grace_s=0.2,
        )
        return SlurmBackend(settings, options=dataclasses.replace(QUICK, **options))

    return open_one


@pytest.fixture
def backend(opened: Open) -> SlurmBackend:
    return opened()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / KEY


def told(backend: SlurmBackend, *keys: str) -> Any:
    """The final reports; polls until there are."""
    deadline = time.monotonic() + 20.0
    while True:
        reports = backend.poll(keys or (KEY,))
        if all(report.state.final for report in reports.values()):
            return reports if keys else reports[KEY]
        assert time.monotonic() < deadline, reports
        time.sleep(0.01)


def state(backend: SlurmBackend) -> JobState:
    return backend.poll([KEY])[KEY].state


def interrupt(job: Path) -> None:
    """Let the process that announced the job have ended."""
    record = json.loads((job / "submission.json").read_text())
    (job / "submission.json").write_text(json.dumps({**record, "owner": "1:0:gone"}))


# -- submitting ----------------------------------------------------------------------------------------


def test_a_job_is_submitted_with_its_environment_and_no_secret_in_its_script(opened, cluster, make_step, job):
    backend = opened(
        {"WORD": "s3cret-word", "NAME": "a\nb", "SLURM_JOB_ID": "9", "CUDA_VISIBLE_DEVICES": "3"}
    )
    step = make_step(secrets=("WORD",), env={"LR": "0.1", "API_TOKEN": "tok-123"})
    assert backend.submit(step, KEY) == KEY
    assert backend.job_id(KEY) == "101"
    given = (cluster.folder / "environment").read_text().split("\0")
    assert {"WORD=s3cret-word", "NAME=a\nb", "API_TOKEN=tok-123", "OMP_NUM_THREADS=1"} <= set(given)
    assert not [pair for pair in given if pair.startswith(("SLURM_", "CUDA_VISIBLE", "LR="))]
    kept = b"".join(path.read_bytes() for path in job.parent.rglob("*") if path.is_file())
    assert b"s3cret-word" not in kept and b"tok-123" not in kept
    assert not any("s3cret" in call or "tok-123" in call for call in cluster.calls())


def test_a_refusal_leaves_nothing_and_the_step_can_be_submitted_again(backend, cluster, make_step):
    cluster.say("refuse")
    with pytest.raises(SubmitError, match=r"train/one: sbatch: .*Invalid partition name"):
        backend.submit(make_step(), KEY)
    assert backend.find(KEY) is None
    assert backend.free(Resources())
    cluster.unsay("refuse")
    backend.submit(make_step(), KEY)
    assert len(cluster.queue()) == 1


def test_a_scheduler_that_is_silent_is_an_error_and_is_asked_again(backend, cluster, make_step):
    cluster.say("silent")
    with pytest.raises(BackendUnreachable, match="Unable to contact"):
        backend.submit(make_step(), KEY)
    assert backend.find(KEY) == KEY
    with pytest.raises(BackendUnreachable):
        backend.poll([KEY])
    cluster.unsay("silent")
    assert state(backend) is JobState.PENDING
    assert state(backend) is JobState.PENDING
    assert len(cluster.queue()) == 1


def test_a_submission_whose_answer_was_lost_is_found_in_the_queue(backend, cluster, make_step):
    cluster.say("deaf")
    with pytest.raises(BackendUnreachable, match="Socket timed out"):
        backend.submit(make_step(), KEY)
    cluster.unsay("deaf")
    assert state(backend) is JobState.PENDING
    assert backend.job_id(KEY) == "101"
    assert len(cluster.calls("sbatch")) == 1


def test_a_crash_before_sbatch_leaves_a_job_that_nobody_knows(backend, opened, cluster, make_step, job):
    cluster.say("silent")
    with pytest.raises(BackendUnreachable):
        backend.submit(make_step(), KEY)
    cluster.unsay("silent")
    interrupt(job)
    later = opened()
    assert later.find(KEY) is None
    assert later.submit(make_step(), KEY) == KEY
    assert later.job_id(KEY) == "101"


def test_a_crash_after_sbatch_leaves_a_job_that_is_found(backend, opened, cluster, make_step, job):
    backend.submit(make_step(), KEY)
    (job / "slurm.json").unlink()
    interrupt(job)
    later = opened()
    assert later.find(KEY) == KEY
    assert later.job_id(KEY) == "101"
    later.submit(make_step(), KEY)
    assert len(cluster.calls("sbatch")) == 1


def test_a_job_submitted_twice_starts_once(backend, cluster, make_step, job, tmp_path):
    backend.submit(make_step(script="echo started >> starts"), KEY)
    cluster.start(job)
    cluster.start(job, "102")
    assert told(backend).state is JobState.SUCCEEDED
    assert (tmp_path / "starts").read_text() == "started\n"
    assert (job / "allocation").read_text() == "101 0 n1\n"


def test_what_may_have_been_submitted_is_given_up_only_so_that_it_cannot_start(
    backend, opened, cluster, make_step, job, tmp_path
):
    backend.submit(make_step(script="echo started >> starts"), KEY)
    (job / "slurm.json").unlink()
    interrupt(job)
    cluster.say("silent")
    later = opened()
    assert later.find(KEY) == KEY  # nobody can tell, so it is not submitted again
    with pytest.raises(BackendUnreachable):
        later.poll([KEY])
    cluster.unsay("silent")
    cluster.say("queue", "")
    report = told(later)
    assert (report.state, report.reason) == (JobState.LOST, "lost")
    assert later.explain(KEY, report).retry
    cluster.start(job)
    assert not (tmp_path / "starts").exists()


def test_a_folder_that_cannot_be_written_refuses_the_step(opened, make_step, tmp_path):
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(SubmitError, match="could not be written"):
        opened().submit(make_step(), KEY)


def test_without_slurm_s_commands_the_remedy_is_told(opened, make_step, tmp_path):
    backend = opened({"PATH": str(tmp_path / "nowhere")}, ssh="login.example")
    with pytest.raises(BackendUnreachable, match=r"ssh: cannot be run .*install Slurm's commands"):
        backend.submit(make_step(), KEY)


def test_a_command_that_takes_too_long_has_not_answered(opened, cluster, make_step):
    backend = opened(answer_s=0.2)
    program = cluster.folder / "bin" / "squeue"
    backend.submit(make_step(), KEY)
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    with pytest.raises(BackendUnreachable, match=r"squeue: no answer within 0\.2 s"):
        backend.poll([KEY])


# -- watching ------------------------------------------------------------------------------------------


def test_all_jobs_are_asked_for_at_once_and_not_too_often(opened, cluster, make_step):
    backend = opened(poll_s=600.0)
    keys = [f"k-{i}" for i in range(5)]
    for key in keys:
        backend.submit(make_step(name=key), key)
    for _ in range(3):
        assert {r.state for r in backend.poll(keys).values()} == {JobState.PENDING}
    assert len(cluster.calls("squeue")) == 1
    assert backend.poll([]) == {}


def test_a_job_that_ended_by_itself_needs_no_word_of_slurm(opened, cluster, make_step, job):
    backend = opened()
    backend.submit(make_step(script="echo out; exit 3"), KEY)
    cluster.start(job)
    cluster.say("silent")
    report = backend.poll([KEY])[KEY]
    assert (report.state, report.exit_code) == (JobState.FAILED, 3)
    assert backend.logs(KEY, "stdout") == (b"out\n", 4)


def test_why_a_job_waits_is_told(backend, cluster, make_step):
    backend.submit(make_step(), KEY)
    assert backend.poll([KEY])[KEY].detail == "waits in the queue: Priority"
    cluster.becomes("RUNNING")
    assert state(backend) is JobState.RUNNING


def test_a_job_that_slurm_forgot_before_it_began_is_lost_and_cannot_start(
    backend, cluster, make_step, job, tmp_path
):
    backend.submit(make_step(script="echo started >> starts"), KEY)
    cluster.say("queue", "101|RUNNING|n1|None|somebody-else\n")  # the number was given out again
    report = told(backend)
    assert (report.state, report.detail) == (JobState.LOST, "Slurm does not know the job any more")
    cluster.start(job)
    assert not (tmp_path / "starts").exists()


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_lost_node_whose_command_still_runs_is_waited_for(
    backend, cluster, make_step, job, tmp_path, *, forgotten
):
    backend.submit(make_step(script="touch began; while [ ! -e go ]; do sleep 0.01; done"), KEY)
    running = cluster.begin(job)
    deadline = time.monotonic() + 20.0
    while not (tmp_path / "began").exists() or not (job / "heartbeat").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cluster.becomes("NODE_FAIL")
    if forgotten:
        cluster.say("queue", "")
    for beat in range(25):  # longer than it may be silent, but it is not
        os.utime(job / "heartbeat", (beat, beat))
        assert state(backend) is JobState.RUNNING
        time.sleep(0.01)
    (tmp_path / "go").touch()
    running.wait()
    assert told(backend).state is JobState.SUCCEEDED


def test_a_job_that_another_submission_of_it_began_is_not_given_up(
    backend, cluster, make_step, job, tmp_path
):
    """As after a crash: two submissions of one job, and the one that we know of found it taken."""
    backend.submit(make_step(script="touch began; while [ ! -e go ]; do sleep 0.01; done"), KEY)
    running = cluster.begin(job, "99")
    deadline = time.monotonic() + 20.0
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert cluster.start(job, "101").returncode != 0
    cluster.becomes("FAILED")
    for beat in range(15):  # longer than a record may be late
        os.utime(job / "heartbeat", (beat, beat))
        assert state(backend) is JobState.RUNNING
        time.sleep(0.01)
    (tmp_path / "go").touch()
    running.wait()
    assert told(backend).state is JobState.SUCCEEDED


def test_a_lost_node_whose_command_is_silent_is_lost(backend, cluster, make_step, job):
    backend.submit(make_step(script="sleep 600"), KEY)
    running = cluster.begin(job)
    deadline = time.monotonic() + 20.0
    while not (job / "heartbeat").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    cluster.becomes("NODE_FAIL")
    report = told(backend)
    assert (report.state, report.detail) == (JobState.LOST, "lost its node (NODE_FAIL)")
    assert report.started_at
    analysis = backend.explain(KEY, report)
    assert (analysis.cause, analysis.retry) == ("lost", True)


@pytest.mark.parametrize(
    ("ending", "wanted", "cause", "retry"),
    [
        ("TIMEOUT", (JobState.FAILED, "timeout"), "timeout", False),
        ("PREEMPTED", (JobState.LOST, "lost"), "lost", True),
        ("CANCELLED", (JobState.CANCELLED, "cancelled"), "cancelled", False),
        ("OUT_OF_MEMORY", (JobState.FAILED, "signal"), "out_of_memory", False),
    ],
)
def test_who_stopped_a_job_is_for_slurm_to_say(
    backend, opened, cluster, make_step, job, ending, wanted, cause, retry
):
    backend.submit(make_step(script="kill -TERM $PPID; sleep 600"), KEY)
    cluster.start(job)
    cluster.becomes("COMPLETING")
    assert state(backend) is JobState.RUNNING
    cluster.becomes(ending)
    report = told(backend)
    assert (report.state, report.reason) == wanted
    analysis = backend.explain(KEY, report)
    assert (analysis.cause, analysis.retry) == (cause, retry)
    cluster.say("queue", "")
    later = opened()
    assert later.poll([KEY])[KEY] == report
    assert later.explain(KEY, report).cause == cause


def test_a_command_that_ends_well_when_slurm_ends_it_has_not_done_its_work(backend, cluster, make_step, job):
    backend.submit(make_step(script="exit 0"), KEY)
    said = "slurmstepd: error: *** JOB 101 ON n1 CANCELLED AT 2026-11-26T14:00:00 DUE TO TIME LIMIT ***\n"
    (job / "slurm.out").write_text(said)
    cluster.start(job)
    cluster.becomes("COMPLETING")
    report = told(backend)
    assert (report.state, report.reason, report.exit_code) == (JobState.FAILED, "timeout", 0)


@pytest.mark.parametrize("source", ["accounting", "completed", "slurm.out"])
def test_what_is_out_of_the_queue_is_told_by_whoever_kept_it(backend, cluster, make_step, job, source):
    backend.submit(make_step(script="kill -TERM $PPID; sleep 600"), KEY)
    cluster.start(job)
    cluster.say("queue", "")
    if source == "slurm.out":
        said = "slurmstepd: error: *** JOB 101 ON n1 CANCELLED AT 2026-11-26T14:00:00 DUE TO TIME LIMIT ***\n"
        (job / "slurm.out").write_text(said)
    else:
        cluster.say(source, f"100|COMPLETED|n1|other\n101|TIMEOUT|n1|{KEY}\n")
    assert told(backend).reason == "timeout"


def test_a_script_that_fails_before_the_command_says_so(opened, cluster, make_step, job):
    backend = opened(python="/no/such/python")
    backend.submit(make_step(), KEY)
    ended = cluster.start(job)
    (job / "slurm.out").write_bytes(ended.stderr)
    cluster.becomes("FAILED")
    report = told(backend)
    assert (report.state, report.reason) == (JobState.FAILED, "start")
    assert "/no/such/python" in report.detail


def test_set_up_lines_run_before_the_command(opened, cluster, make_step, job):
    backend = opened(setup="export FROM_SETUP='a b'\n")
    backend.submit(make_step(script='echo "$FROM_SETUP"'), KEY)
    cluster.start(job)
    assert told(backend).state is JobState.SUCCEEDED
    assert backend.logs(KEY, "stdout")[0] == b"a b\n"


# -- requeueing ----------------------------------------------------------------------------------------


def test_a_job_that_slurm_starts_again_is_judged_by_its_last_start(opened, cluster, make_step, job, tmp_path):
    backend = opened(requeue=True)
    script = "echo >> starts; [ -e again ] && exit 0; touch again; kill -TERM $PPID; sleep 600"
    backend.submit(make_step(script=script), KEY)
    cluster.start(job)
    cluster.becomes("COMPLETING")
    for _ in range(10):
        assert state(backend) is JobState.RUNNING
        time.sleep(0.01)
    cluster.becomes("PENDING", reason="BeginTime")
    assert state(backend) is JobState.PENDING
    cluster.start(job, restarts=1)
    assert told(backend).state is JobState.SUCCEEDED
    assert len((tmp_path / "starts").read_text().splitlines()) == 2
    assert (job / "start.1" / "exit.json").exists()


def test_a_job_that_was_given_up_is_not_started_again_by_a_requeue(opened, cluster, make_step, job, tmp_path):
    backend = opened(requeue=True)
    backend.submit(make_step(script="echo >> starts"), KEY)
    (job / "allocation").write_text("101 0 n1\n")
    assert JobFolder(job).withdraw()
    cluster.start(job, restarts=1)
    assert not (tmp_path / "starts").exists()


def test_another_submission_of_the_job_does_not_pass_for_a_restart(opened, cluster, make_step, job, tmp_path):
    backend = opened(requeue=True)
    backend.submit(make_step(script="echo >> starts"), KEY)
    cluster.start(job)
    cluster.start(job, "102", restarts=1)
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


# -- cancelling ----------------------------------------------------------------------------------------


def test_a_waiting_job_is_taken_out_and_a_running_one_is_told(backend, cluster, make_step):
    backend.submit(make_step(), KEY)
    backend.cancel([KEY])
    backend.cancel([KEY])
    assert cluster.calls("scancel") == ["scancel --state=PENDING 101"]
    assert told(backend).state is JobState.CANCELLED
    backend.submit(make_step(name="two"), "two")
    cluster.becomes("RUNNING")
    backend.cancel(["two"])
    assert cluster.calls("scancel")[1:] == ["scancel --signal=TERM --batch 102"]


def test_a_cancelled_job_does_not_start_however_late(backend, cluster, make_step, job, tmp_path):
    backend.submit(make_step(script="echo >> starts"), KEY)
    cluster.say("silent")
    backend.cancel([KEY])  # nobody hears
    cluster.unsay("silent")
    cluster.start(job)
    cluster.becomes("COMPLETED")
    report = told(backend)
    assert (report.state, report.reason) == (JobState.CANCELLED, "cancelled")
    assert not (tmp_path / "starts").exists()


def test_a_job_that_is_cancelled_while_it_could_not_be_submitted_never_is(backend, cluster, make_step):
    cluster.say("silent")
    with pytest.raises(BackendUnreachable):
        backend.submit(make_step(), KEY)
    backend.cancel([KEY])
    cluster.unsay("silent")
    assert told(backend).state is JobState.CANCELLED


def test_a_job_that_does_not_heed_is_told_again_and_left_to_slurm_in_the_end(backend, cluster, make_step):
    backend.submit(make_step(), KEY)
    cluster.becomes("RUNNING")
    backend.cancel([KEY])
    deadline = time.monotonic() + 20.0
    while "scancel 101" not in cluster.calls("scancel"):
        assert time.monotonic() < deadline
        assert state(backend) is JobState.RUNNING
    gentle = [call for call in cluster.calls("scancel") if call == "scancel --signal=TERM --batch 101"]
    assert len(gentle) > 1
    assert cluster.calls("scancel")[0] == gentle[0]


# -- arrays --------------------------------------------------------------------------------------------


def keys_of(count: int) -> list[str]:
    return [f"trial-{i}-1-abc" for i in range(count)]


def test_alike_steps_go_as_one_array(backend, opened, cluster, make_step, tmp_path):
    steps = [make_step(name=f"t/{i}", script='echo "$N" >> out', env={"N": str(i)}) for i in range(3)]
    with backend.gathered():
        assert [backend.submit(s, k) for s, k in zip(steps, keys_of(3), strict=True)] == keys_of(3)
        assert backend.find(keys_of(3)[0]) == keys_of(3)[0]
        assert cluster.calls("sbatch") == []
    assert len(cluster.calls("sbatch")) == 1
    assert [backend.job_id(key) for key in keys_of(3)] == ["101_0", "101_1", "101_2"]
    for key in keys_of(3):
        cluster.start(tmp_path / "jobs" / key)
    assert {r.state for r in told(backend, *keys_of(3)).values()} == {JobState.SUCCEEDED}
    assert sorted((tmp_path / "out").read_text().split()) == ["0", "1", "2"]


def test_an_element_of_an_array_runs_the_job_of_its_number(backend, cluster, make_step, tmp_path):
    steps = [make_step(name=f"t/{i}", script='echo "$MODELYARD_STEP" >> out') for i in range(3)]
    with backend.gathered():
        for step, key in zip(steps, keys_of(3), strict=True):
            backend.submit(step, key)
    (script,) = (tmp_path / "jobs" / ".slurm").glob("*.sh")
    environment = {**cluster.environment, "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "103"}
    subprocess.run(["bash", str(script)], env=environment, check=True)
    assert (tmp_path / "out").read_text() == "t/1\n"


@pytest.mark.parametrize(
    "other",
    [
        {"resources": Resources(cpus=2)},
        {"resources": Resources(gpus=1)},
        {"timeout_s": 600.0},
        {"env": {"API_TOKEN": "another"}},
    ],
)
def test_steps_that_differ_in_what_slurm_is_told_go_apart(backend, cluster, make_step, other):
    with backend.gathered():
        backend.submit(make_step(name="a"), "a-1-0")
        backend.submit(make_step(name="b", **other), "b-1-0")
    assert [row.split("|")[4] for row in cluster.queue()] == ["a-1-0", "b-1-0"]


def test_an_array_has_a_largest_size(opened, cluster, make_step):
    backend = opened(array=2)
    with backend.gathered():
        for key in keys_of(5):
            backend.submit(make_step(name=key), key)
    assert [row.split("|")[0] for row in cluster.queue()] == ["101_0", "101_1", "102_0", "102_1", "103"]


def test_a_refused_array_fails_each_of_its_steps(backend, opened, cluster, make_step):
    cluster.say("refuse")
    with backend.gathered():
        for key in keys_of(2):
            backend.submit(make_step(name=key), key)
    for one in (backend, opened()):
        reports = told(one, *keys_of(2))
        assert {(r.state, r.reason) for r in reports.values()} == {(JobState.FAILED, "start")}
        assert "Invalid partition name" in reports[keys_of(2)[1]].detail


def test_an_array_that_nobody_took_is_submitted_at_the_next_poll(backend, cluster, make_step):
    cluster.say("silent")
    with backend.gathered():
        for key in keys_of(2):
            backend.submit(make_step(name=key), key)
    with pytest.raises(BackendUnreachable):
        backend.poll(keys_of(2))
    cluster.unsay("silent")
    backend.poll(keys_of(2))
    assert [backend.job_id(key) for key in keys_of(2)] == ["101_0", "101_1"]


def test_an_array_whose_answer_was_lost_is_found_in_the_queue(backend, cluster, make_step):
    cluster.say("deaf")
    with backend.gathered():
        for key in keys_of(2):
            backend.submit(make_step(name=key), key)
    cluster.unsay("deaf")
    backend.poll(keys_of(2))
    assert [backend.job_id(key) for key in keys_of(2)] == ["101_0", "101_1"]
    assert len(cluster.calls("sbatch")) == 1


def test_one_of_an_array_that_nobody_took_can_be_cancelled(backend, cluster, make_step):
    cluster.say("silent")
    with backend.gathered():
        for key in keys_of(3):
            backend.submit(make_step(name=key), key)
    backend.cancel(keys_of(3)[:1])
    cluster.unsay("silent")
    reports = {}
    for _ in range(3):
        reports = backend.poll(keys_of(3))
    assert [reports[key].state.value for key in keys_of(3)] == ["CANCELLED", "PENDING", "PENDING"]


def test_a_crash_before_an_array_is_submitted_leaves_jobs_that_nobody_knows(
    opened, cluster, make_step, tmp_path
):
    first = opened()
    with pytest.raises(KeyboardInterrupt), first.gathered():
        cluster.say("silent")
        for key in keys_of(2):
            first.submit(make_step(name=key), key)
        raise KeyboardInterrupt
    cluster.unsay("silent")
    for key in keys_of(2):
        interrupt(tmp_path / "jobs" / key)
    later = opened()
    assert [later.find(key) for key in keys_of(2)] == [None, None]
    with later.gathered():
        for key in keys_of(2):
            later.submit(make_step(name=key), key)
    assert [later.job_id(key) for key in keys_of(2)] == ["101_0", "101_1"]


# -- ssh and limits ------------------------------------------------------------------------------------


def test_every_command_can_go_through_ssh(opened, cluster, make_step, job):
    backend = opened({"WORD": "it's a $word"}, ssh="me@login.example")
    backend.submit(make_step(script='echo "$WORD"'), KEY)
    assert state(backend) is JobState.PENDING
    backend.cancel([KEY])
    begins = "ssh -o BatchMode=yes me@login.example "
    assert len(cluster.calls("ssh")) == len(cluster.calls()) / 2
    assert all(call.startswith(begins) for call in cluster.calls("ssh"))
    assert "WORD=it's a $word" in (cluster.folder / "environment").read_text().split("\0")


def test_a_way_that_is_cut_is_no_answer(opened, cluster, make_step):
    backend = opened(ssh="login.example")
    cluster.say("no_route")
    with pytest.raises(BackendUnreachable, match="sbatch: ssh: connect to host: No route"):
        backend.submit(make_step(), KEY)


def test_without_limits_of_ours_there_is_room_and_with_them_nodes_count(opened):
    assert opened().fits(Resources(nodes=64, cpus=128, gpus=8)) == ""
    assert opened().free(Resources(nodes=64, cpus=128))
    limited = opened(slots=4, gpus=2)
    assert "8" in limited.fits(Resources(nodes=2, cpus=4))
    assert "4" in limited.fits(Resources(nodes=2, cpus=1, gpus=2))
    assert limited.fits(Resources(nodes=2, cpus=2, gpus=1)) == ""


def test_stillness_is_counted_by_the_reader_s_clock():
    now = [100.0]
    still = Stillness(lambda: now[0])
    assert still.of("a", 1) == 0.0
    now[0] = 105.0
    assert still.of("a", 1) == 5.0
    assert still.of("a", 2) == 0.0
    assert still.of("b", 1) == 0.0
    still.forget("a")
    now[0] = 110.0
    assert still.of("a", 2) == 0.0


def test_the_options_come_from_the_file_that_the_environment_names(tmp_path, cluster, make_step):
    (tmp_path / "slurm.yaml").write_text("partition: night\n")
    environment = {**cluster.environment, "MODELYARD_SLURM": str(tmp_path / "slurm.yaml")}
    backend = SlurmBackend(BackendSettings(jobs_dir=tmp_path / "jobs", environment=environment))
    assert "#SBATCH --partition=night\n" in backend.render(make_step()).body["script"]


def test_the_command_line_cancels_by_the_backend_that_has_the_jobs(cluster, tmp_path):
    (tmp_path / "train.json").write_text(json.dumps({"models": [{"name": "one", "train_cmd": "true"}]}))
    words = [
        "train",
        "--config",
        "train.json",
        "--execute",
        "--run-dir",
        "run",
        "--yard",
        "yard",
        "--backend",
        "slurm",
    ]
    argv = [sys.executable, "-m", "modelyard.cli.main"]
    (tmp_path / "slurm.yaml").write_text("poll: 0.05s\n")
    environment = {**cluster.environment, "MODELYARD_SLURM": "slurm.yaml"}
    driver = subprocess.Popen([*argv, *words], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30.0
    while not list((tmp_path / "run" / "jobs").glob("*/slurm.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    told = subprocess.run([*argv, "cancel", "run", "--yard", "yard"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "stopped (1 jobs that had outlived their driver)" in told.stdout, told.stderr
    assert cluster.calls("scancel") == ["scancel --state=PENDING 101"]
