"""What the SDK backend does beyond the contract: launches that are cut off, SDKs that lack things or lie."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.clock import utc_now
from modelyard.core.errors import BackendUnreachable, SubmitError
from modelyard.core.files import read_json
from modelyard.core.locks import held
from modelyard.jobs.backend import BackendSettings
from modelyard.jobs.backends.local import MARK
from modelyard.jobs.backends.sdk import SdkBackend, SdkOptions
from modelyard.jobs.backends.sdk_calls import (
    Call,
    is_network_trouble,
    script_call,
    shell_command,
    shows_key,
    status_of,
)
from modelyard.jobs.backends.sdk_ledger import newest_jobs
from modelyard.jobs.backends.sdk_logs import GAP, TAIL_LINES, follow, overlaps, read_from
from modelyard.jobs.job import JobState
from modelyard.jobs.step import Resources
from modelyard.testing.bench import fork
from modelyard.testing.process_sdk import BareProcessSdk, ProcessSdk


class Hands:
    """A clock that moves when told."""

    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now

    def move(self, seconds):
        self.now += timedelta(seconds=seconds)


class Scripted:
    """An SDK whose answers are written down beforehand; it begins nothing."""

    def __init__(self, **answers):
        self.answers = {"create": SimpleNamespace(id="job-1"), "status": "Running", "logs": "", **answers}
        self.created, self.cancelled = [], []

    def create_job(self, **arguments):
        self.created.append(arguments)
        return self._answer("create")

    def get_job_status(self, job_id):
        return self._answer("status")

    def get_job_logs(self, job_id, tail=None):
        return self._answer("logs")

    def get_failure_analysis(self, job_id):
        return self._answer("analysis")

    def cancel_job(self, job_id):
        self.cancelled.append(job_id)
        return self._answer("cancel")

    def _answer(self, name):
        answer = self.answers.get(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Listing(Scripted):
    def list_jobs(self):
        return self._answer("list") or []


@pytest.fixture
def hands():
    return Hands()


@pytest.fixture
def open_sdk(tmp_path, hands):
    """Opens a backend over an SDK, as the next process would; all in one folder of jobs."""

    def open_one(sdk, *, settings=None, clock=hands, **options):
        given = {"jobs_dir": tmp_path / "jobs", "environment": {"WORD": "hush-4711"}, **(settings or {})}
        options = {"poll_s": 0.02, "settle_s": 0.0, "unknown_s": 100.0, **options}
        return SdkBackend(BackendSettings(**given), sdk, options=SdkOptions(**options), clock=clock)

    return open_one


@pytest.fixture
def real(tmp_path, open_sdk):
    """A backend over processes, on the real clock."""

    def open_one(kind=ProcessSdk, *, dies="", **options):
        sdk = kind(tmp_path / "platform")
        return open_sdk(dying(sdk, when=dies) if dies else sdk, clock=utc_now, **options)

    return open_one


def dying(sdk, *, when):
    """The SDK, of which the next `create_job` kills its process before or after the job begins."""
    name = "create_job" if hasattr(sdk, "create_job") else "create_python_job"
    create = getattr(sdk, name)

    class Dying(type(sdk)):
        pass

    def begin(self, **arguments):
        if when == "after":
            create(**arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(Dying, name, begin)
    sdk.__class__ = Dying
    return sdk


def killed(action):
    """Run an action in a process that is killed by it."""
    pid = fork(action)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def poll(backend, key):
    return backend.poll([key])[key]


# -- launches that are cut off ------------------------------------------------------------------------------


def test_a_launch_cut_off_after_it_began_is_found_in_the_list(real, make_step, ended, tmp_path, wait_until):
    step = make_step(script="echo started >> starts; while [ ! -e go ]; do sleep 0.01; done")
    killed(lambda: real(dies="after").submit(step, "key-1"))
    backend = real()
    assert backend.find("key-1") == "key-1"
    assert backend.submit(step, "key-1") == "key-1"
    wait_until(lambda: poll(backend, "key-1").state is JobState.RUNNING)
    (folder,) = (tmp_path / "platform").iterdir()
    assert backend.job_id("key-1") == folder.name
    (tmp_path / "go").touch()
    assert ended(backend, "key-1").state is JobState.SUCCEEDED
    assert (tmp_path / "starts").read_text() == "started\n"


def test_a_launch_cut_off_before_it_began_is_lost_and_not_made_again(real, make_step, tmp_path):
    step = make_step(script="touch begun")
    killed(lambda: real(dies="before").submit(step, "key-1"))
    backend = real()
    assert backend.submit(step, "key-1") == backend.find("key-1") == "key-1"
    report = poll(backend, "key-1")
    assert (report.state, report.reason) == (JobState.LOST, "lost")
    assert "does not list it" in report.detail
    assert f"{MARK}=key-1" in report.detail
    assert not (tmp_path / "platform").exists()
    assert backend.free(Resources(cpus=10**6))
    assert poll(real(), "key-1") == report
    assert backend.explain("key-1", report).cause == "lost"


def test_without_a_list_a_cut_off_launch_is_lost_even_if_it_runs(real, make_step, tmp_path, wait_until):
    step = make_step(script="touch begun")
    killed(lambda: real(BareProcessSdk, dies="after").submit(step, "key-1"))
    backend = real(BareProcessSdk)
    backend.submit(step, "key-1")
    report = poll(backend, "key-1")
    assert report.state is JobState.LOST
    assert "cannot list" in report.detail
    wait_until((tmp_path / "begun").exists)
    assert len(list((tmp_path / "platform").iterdir())) == 1


def test_a_cut_off_launch_is_waited_for_before_it_is_lost(open_sdk, make_step, hands):
    sdk = Listing(create=ConnectionError("reset"))
    backend = open_sdk(sdk, settle_s=10.0)
    with pytest.raises(BackendUnreachable, match="reset"):
        backend.submit(make_step(), "key-1")
    hands.move(9.0)
    assert poll(backend, "key-1").state is JobState.PENDING
    sdk.answers["list"] = [{"job_id": "other"}, {"job_id": "job-7", "command": ": modelyard job key-1\ntrue"}]
    assert poll(backend, "key-1").state is JobState.PENDING  # not looked for yet
    hands.move(2.0)
    assert poll(backend, "key-1").state is JobState.RUNNING
    assert backend.job_id("key-1") == "job-7"
    assert len(sdk.created) == 1


def test_a_launch_that_another_machine_makes_is_waited_for_up_to_the_limit(
    open_sdk, make_step, hands, tmp_path
):
    backend = open_sdk(Listing())
    backend.submit(make_step(), "key-1")
    folder = tmp_path / "jobs" / "key-1"
    (folder / "job.json").unlink()
    intent = read_json(folder / "intent.json")
    (folder / "intent.json").write_text(json.dumps({**intent, "host": "elsewhere", "owner": "1:2:3"}))
    hands.move(99.0)
    assert poll(backend, "key-1").state is JobState.PENDING
    hands.move(2.0)
    assert poll(backend, "key-1").state is JobState.LOST


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), ConnectionResetError("gone"), TimeoutError("slow")])
def test_an_interrupted_call_is_no_refusal(open_sdk, make_step, trouble):
    sdk = Scripted(create=trouble)
    backend = open_sdk(sdk)
    with pytest.raises((BackendUnreachable, KeyboardInterrupt)):
        backend.submit(make_step(), "key-1")
    assert backend.find("key-1") == "key-1"
    assert poll(backend, "key-1").state is JobState.LOST
    assert len(sdk.created) == 1


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionError])
def test_an_error_that_names_the_job_has_begun_it(open_sdk, make_step, kind):
    error = kind("interrupted")
    error.tao_job_id = "job-9"
    sdk = Scripted(create=error)
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    assert backend.job_id("key-1") == "job-9"
    error.tao_launch_uncertain = False
    expected = SubmitError if kind is RuntimeError else BackendUnreachable
    with pytest.raises(expected, match="interrupted"):
        backend.submit(make_step(), "key-2")


def test_a_refused_job_can_be_submitted_again(open_sdk, make_step):
    sdk = Scripted(create=TypeError("unexpected keyword argument 'partition'"))
    backend = open_sdk(sdk, platform_kwargs={"partition": "gpu"})
    with pytest.raises(SubmitError, match=r"train/one: Scripted refused .*partition"):
        backend.submit(make_step(), "key-1")
    assert backend.find("key-1") is None
    assert backend.free(Resources(cpus=10**6))
    sdk.answers["create"] = "job-1"
    assert backend.submit(make_step(), "key-1") == "key-1"
    assert poll(backend, "key-1").state is JobState.RUNNING


def test_a_refusal_after_the_fact_is_none_where_the_list_has_the_job(open_sdk, make_step):
    sdk = Listing(create=ValueError("500"), list=[SimpleNamespace(id="job-3", env={MARK: "key-1"})])
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    assert backend.job_id("key-1") == "job-3"


def test_a_call_that_gives_no_id_leaves_the_launch_in_doubt(open_sdk, make_step):
    backend = open_sdk(Scripted(create=None))
    with pytest.raises(BackendUnreachable, match="no id"):
        backend.submit(make_step(), "key-1")
    assert poll(backend, "key-1").state is JobState.LOST


def test_a_folder_that_cannot_be_written_is_a_refusal(open_sdk, make_step, tmp_path):
    (tmp_path / "jobs").write_text("a file")
    sdk = Scripted()
    with pytest.raises(SubmitError, match="free the disk"):
        open_sdk(sdk).submit(make_step(), "key-1")
    assert sdk.created == []


# -- what is asked ------------------------------------------------------------------------------------------


def test_the_call_is_what_the_dry_run_shows_with_the_key_added(open_sdk, make_step):
    sdk = Scripted()
    kwargs = {"partition": "gpu", "mounts": [{"host_path": "/d"}], "env_vars": {"A": "platform", "B": "2"}}
    backend = open_sdk(sdk, image="trainer:1", platform_kwargs=kwargs, settings={"gpus": ("4", "5")})
    step = make_step(env={"A": "step"}, secrets=("WORD",), seed=3, resources=Resources(cpus=2, gpus=1))
    shown = backend.render(step).body
    backend.submit(step, "key-1")
    (asked,) = sdk.created
    variables = asked.pop("env_vars")
    assert variables == {
        "A": "step", "B": "2", "WORD": "hush-4711", "MODELYARD_SEED": "3", "MODELYARD_STEP": "train/one",
        "MODELYARD_CPUS": "2", "CUDA_VISIBLE_DEVICES": "4", MARK: "key-1",
    }  # fmt: skip
    assert shown.pop("env_vars") == {
        "A": "step", "B": "2", "WORD": "[redacted]", "MODELYARD_SEED": "3", "MODELYARD_STEP": "train/one",
        "MODELYARD_CPUS": "2",
    }  # fmt: skip
    assert asked.pop("command") == f": modelyard job key-1\n{shown.pop('command')}"
    assert shown == {"call": "create_job", **asked}
    assert asked == {
        "image": "trainer:1",
        "gpu_count": 1,
        "partition": "gpu",
        "mounts": [{"host_path": "/d"}],
    }


def test_the_platforms_arguments_win_and_a_steps_image_wins_over_the_default(open_sdk, make_step):
    backend = open_sdk(Scripted(), image="trainer:1", platform_kwargs={"gpu_count": 8})
    body = backend.render(make_step(image="other:2", resources=Resources(nodes=3))).body
    assert (body["image"], body["gpu_count"], body["num_nodes"]) == ("other:2", 8, 3)


def test_secrets_of_the_platform_are_not_shown(open_sdk, make_step):
    backend = open_sdk(
        Scripted(), platform_kwargs={"image_pull_secret": "xyzzy", "env_vars": {"NGC_API_KEY": "k"}}
    )
    assert "xyzzy" not in json.dumps(backend.render(make_step()).body)
    assert backend.render(make_step()).body["env_vars"]["NGC_API_KEY"] == "[redacted]"


def test_a_call_of_ones_own_is_used(open_sdk, make_step):
    sdk = Scripted()
    call = Call(
        method="create_job", arguments={"image": "i", "command": "train --lr 1", "env_vars": {"X": "1"}}
    )
    open_sdk(sdk, call=lambda step: call).submit(make_step(), "key-1")
    (asked,) = sdk.created
    assert asked["command"] == ": modelyard job key-1\ntrain --lr 1"
    assert asked["env_vars"]["X"] == "1"
    assert asked["env_vars"][MARK] == "key-1"


def test_an_sdk_that_lacks_the_method_refuses(open_sdk, make_step):
    call = Call(method="create_python_job")
    with pytest.raises(SubmitError, match="create_python_job"):
        open_sdk(Scripted(), call=lambda step: call).submit(make_step(), "key-1")


def test_scripts_are_told_from_other_commands(make_step, tmp_path):
    step = make_step(
        argv=("/opt/venv/bin/python3.11", "train.py", "--lr", "0.1"), resources=Resources(gpus=2)
    )
    assert script_call(step).arguments == {
        "script": str(tmp_path / "train.py"), "script_args": ["--lr", "0.1"], "cwd": str(tmp_path),
        "gpu_count": 2, "network_arch": "modelyard", "action": "train/one",
    }  # fmt: skip
    for argv in (("python", "-c", "1"), ("bash", "x.sh"), ("python",)):
        with pytest.raises(SubmitError, match=r"python script\.py"):
            script_call(make_step(argv=argv))
    with pytest.raises(SubmitError, match="scripts only"):
        script_call(make_step(script="python train.py"))


def test_the_last_job_of_each_step_is_known(open_sdk, make_step, hands, tmp_path):
    sdk = Scripted()
    backend = open_sdk(sdk)
    for number, name in enumerate(("trial/0001", "trial/0001", "trial/0002")):
        sdk.answers["create"] = f"job-{number}"
        backend.submit(make_step(name), f"{name.replace('/', '-')}-{9 - number}")
        hands.move(1.0)
    assert newest_jobs(tmp_path / "jobs") == {"trial/0001": "job-1", "trial/0002": "job-2"}
    assert newest_jobs(tmp_path / "jobs", "trial-0002-*") == {"trial/0002": "job-2"}
    assert newest_jobs(tmp_path / "none") == {}


def test_without_numbers_nothing_is_held_back(open_sdk, make_step):
    backend = open_sdk(Scripted())
    assert backend.fits(Resources(cpus=512, gpus=64, nodes=8)) == ""
    for number in range(50):
        backend.submit(make_step(), f"key-{number}")
    assert backend.free(Resources(cpus=512, gpus=64))


# -- what comes of it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("Pending", "pending"), ("QUEUED", "pending"), ("Paused", "pending"), ("Running", "running"),
        ("Canceling", "running"), ("Complete", "done"), ("Succeeded", "done"), ("Error", "failed"),
        ("FAILED", "failed"), ("Canceled", "cancelled"), ("cancelled", "cancelled"), ("NotFound", "gone"),
        ("not_found", "gone"), ("Deleted", "gone"), ("Unknown", "unknown"), ("", "unknown"),
        (None, "unknown"),
    ],
)  # fmt: skip
def test_words_for_states(word, meaning):
    assert status_of(word)[0] == meaning
    assert status_of({"status": word, "message": "m"}) == (meaning, "m")
    assert status_of(SimpleNamespace(status=SimpleNamespace(value=word), message="m")) == (meaning, "m")


def test_a_job_that_is_kept_open_for_a_person_is_unknown():
    message = "Python launcher ended without a durable record; keeping the job non-terminal"
    assert status_of(SimpleNamespace(status="Running", message=message)) == ("unknown", message)


def test_a_job_is_unknown_only_for_so_long(open_sdk, make_step, hands):
    sdk = Scripted()
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    assert poll(backend, "key-1").state is JobState.RUNNING
    sdk.answers["status"] = {"status": "Unknown", "message": "no accounting"}
    assert poll(backend, "key-1").state is JobState.RUNNING
    hands.move(99.0)
    sdk.answers["status"] = KeyError("job-1")  # an SDK that no longer knows it says no more
    assert poll(open_sdk(sdk), "key-1").state is JobState.RUNNING  # counted across processes
    sdk.answers["status"] = "Running"
    assert poll(backend, "key-1").state is JobState.RUNNING
    sdk.answers["status"] = "Unknown"
    hands.move(99.0)
    poll(backend, "key-1")
    hands.move(101.0)
    report = poll(open_sdk(sdk), "key-1")
    assert report.state is JobState.LOST
    assert "101 s" in report.detail
    sdk.answers["status"] = "Complete"
    assert poll(backend, "key-1") == report


def test_a_platform_that_does_not_answer_is_an_error_and_no_state(open_sdk, make_step, hands):
    sdk = Scripted()
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    for name, ending in (("status", "Running"), ("logs", "Complete"), ("analysis", "Error")):
        before, sdk.answers["status"] = sdk.answers.get(name), ending
        sdk.answers[name] = OSError(errno.EHOSTUNREACH, "No route to host")
        with pytest.raises(BackendUnreachable, match="No route"):
            backend.poll(["key-1"])
        hands.move(1000.0)
        sdk.answers[name] = before
    assert poll(backend, "key-1").state is JobState.FAILED


def test_kinds_of_trouble():
    class MaxRetryError(Exception):
        """As urllib3 names it."""

    class ReadTimeout(Exception):  # noqa: N818
        """As requests and httpx name it."""

    assert all(
        map(is_network_trouble, [MaxRetryError(), ReadTimeout(), ConnectionResetError(), TimeoutError()])
    )
    chained = RuntimeError("docker")
    chained.__cause__ = MaxRetryError()
    assert is_network_trouble(chained)
    refusals = [
        ValueError("x"),
        KeyError("x"),
        FileNotFoundError("x"),
        PermissionError("x"),
        RuntimeError("x"),
        None,
    ]
    assert not any(map(is_network_trouble, refusals))
    circle = RuntimeError()
    circle.__cause__ = circle
    assert not is_network_trouble(circle)


def test_what_has_gone_from_the_platform_is_lost_unless_we_ended_it(open_sdk, make_step):
    sdk = Scripted(status="NotFound")
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    assert poll(backend, "key-1").state is JobState.LOST
    backend.submit(make_step(), "key-2")
    backend.cancel(["key-2"])
    assert poll(backend, "key-2").state is JobState.CANCELLED


def test_somebody_elses_cancel_is_told_from_ours(open_sdk, make_step):
    backend = open_sdk(Scripted(status={"status": "Canceled", "message": "by admin"}))
    backend.submit(make_step(), "key-1")
    report = poll(backend, "key-1")
    assert (report.state, report.detail) == (JobState.CANCELLED, "cancelled on the platform: by admin")


def test_a_cancel_that_is_not_heard_is_asked_again_and_not_for_ever(open_sdk, make_step, hands):
    sdk = Scripted(cancel=ConnectionError("reset"))
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    backend.cancel(["key-1"])
    backend.cancel(["key-1"])
    assert sdk.cancelled == ["job-1"]
    assert poll(backend, "key-1").state is JobState.RUNNING
    hands.move(31.0)
    poll(open_sdk(sdk), "key-1")
    poll(backend, "key-1")
    assert len(sdk.cancelled) == 2
    hands.move(100.0)
    report = poll(backend, "key-1")
    assert report.state is JobState.LOST
    assert "may run on" in report.detail


def test_a_cancel_during_an_interrupted_launch_is_carried_out_when_the_job_is_found(
    open_sdk, make_step, hands
):
    sdk = Listing(create=TimeoutError("slow"))
    backend = open_sdk(sdk)
    with pytest.raises(BackendUnreachable):
        backend.submit(make_step(), "key-1")
    backend.cancel(["key-1"])
    sdk.answers["list"] = [{"id": "job-4", "name": "key-1"}]
    hands.move(31.0)
    poll(backend, "key-1")
    assert sdk.cancelled == ["job-4"]


def test_a_time_limit_holds_where_the_sdk_cannot_cancel(open_sdk, make_step, hands):
    class Deaf:
        create_job, get_job_status = Scripted.create_job, Scripted.get_job_status
        get_job_logs, get_failure_analysis = Scripted.get_job_logs, Scripted.get_failure_analysis
        _answer, __init__ = Scripted._answer, Scripted.__init__

    sdk = Deaf()
    backend = open_sdk(sdk)
    backend.submit(make_step(timeout_s=10.0), "key-1")
    assert poll(backend, "key-1").state is JobState.RUNNING
    hands.move(10.0)
    assert poll(backend, "key-1").state is JobState.RUNNING
    hands.move(101.0)
    report = poll(backend, "key-1")
    assert (report.state, report.reason) == (JobState.FAILED, "timeout")
    assert "10 s" in report.detail


def test_waiting_in_the_queue_is_no_running_time(open_sdk, make_step, hands):
    sdk = Scripted(status="Pending")
    backend = open_sdk(sdk)
    backend.submit(make_step(timeout_s=10.0), "key-1")
    hands.move(50.0)
    report = poll(backend, "key-1")
    assert (report.state, report.started_at, sdk.cancelled) == (JobState.PENDING, None, [])


@pytest.mark.parametrize(
    ("analysis", "cause", "retry"),
    [
        ({"category": "out_of_memory", "return_code": 1}, "out_of_memory", False),
        ({"reason": "OOMKilled", "exit_code": 137}, "out_of_memory", False),
        ({"reason": "NODE_FAIL", "match": "slurmstepd: node01 failed", "retriable": True}, "lost", True),
        ({"reason": "ImagePullBackOff"}, "network", True),
        ({"reason": "odd", "retriable": True}, "exit", True),
        ({"reason": "odd"}, "exit", False),
        (None, "exit", False),
        (ValueError("no analysis"), "exit", False),
        ("nonsense", "exit", False),
    ],
)
def test_the_sdks_own_analysis_counts_where_the_log_says_nothing(open_sdk, make_step, analysis, cause, retry):
    backend = open_sdk(Scripted(status="Error", analysis=analysis))
    backend.submit(make_step(), "key-1")
    report = poll(backend, "key-1")
    assert report.state is JobState.FAILED
    found = backend.explain("key-1", report)
    assert (found.cause, found.retry) == (cause, retry)


def test_the_log_counts_more_than_the_sdks_analysis(open_sdk, make_step):
    sdk = Scripted(
        status="Error", analysis={"reason": "ImagePull"}, logs="ModuleNotFoundError: No module named 'x'\n"
    )
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    found = backend.explain("key-1", poll(backend, "key-1"))
    assert (found.cause, found.lines) == ("missing_module", ("ModuleNotFoundError: No module named 'x'",))


def test_a_lost_process_is_a_lost_job(open_sdk, make_step):
    backend = open_sdk(Scripted(status="Error", analysis={"category": "lost_process", "return_code": None}))
    backend.submit(make_step(), "key-1")
    assert poll(backend, "key-1").state is JobState.LOST


def test_what_a_job_says_later_is_no_failed_start(open_sdk, make_step):
    words = "training\nmodelyard: could not start: it all\n"
    backend = open_sdk(Scripted(status="Error", logs=words, analysis={"return_code": 3}))
    backend.submit(make_step(), "key-1")
    report = poll(backend, "key-1")
    assert (report.reason, report.exit_code, report.detail) == ("exit", 3, "exit status 3")


# -- logs ---------------------------------------------------------------------------------------------------


def test_with_one_log_everything_is_standard_output(real, make_step, ended):
    backend = real(BareProcessSdk)
    backend.submit(make_step(script="echo out; echo trouble >&2; exit 4"), "key-1")
    report = ended(backend, "key-1")
    assert backend.logs("key-1", "stdout") == (b"out\ntrouble\n", 12)
    assert backend.logs("key-1", "stderr") == (b"", 0)
    assert (report.state, report.exit_code) == (JobState.FAILED, 4)
    assert backend.explain("key-1", report).lines == ("out", "trouble")


def test_logs_stay_when_the_platform_forgets_the_job(open_sdk, make_step):
    sdk = Scripted(status="Complete", logs="loss: 0.5\n")
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    poll(backend, "key-1")
    sdk.answers["logs"] = KeyError("job-1")
    assert backend.logs("key-1", "stdout", 6) == (b"0.5\n", 10)
    assert backend.logs("no-such-key", "stdout", 3) == (b"", 3)


def test_an_sdk_without_logs_of_a_job_stops_nothing(open_sdk, make_step):
    sdk = Scripted(logs=KeyError("job-1"))
    backend = open_sdk(sdk)
    backend.submit(make_step(), "key-1")
    assert backend.logs("key-1", "stdout") == (b"", 0)
    sdk.answers.update(status="Complete", logs=None)
    assert poll(backend, "key-1").state is JobState.SUCCEEDED


class Log:
    """A log that grows, read through an SDK's limits."""

    def __init__(self, *, limit=None):
        self.text, self.limit, self.asked = "", limit, []

    def __call__(self, tail):
        self.asked.append(tail)
        limits = [n for n in (tail, self.limit) if n is not None]
        return "".join(self.text.splitlines(keepends=True)[-min(limits) :]) if limits else self.text


@given(st.lists(st.text(st.sampled_from("ab\n"), max_size=30), max_size=8))
def test_a_copy_is_the_log_however_it_grows(tmp_path_factory, parts):
    copy, log = tmp_path_factory.mktemp("copy") / "stdout.log", Log()
    for part in parts:
        log.text += part
        follow(copy, log, final=False)
        assert read_from(copy, 0)[0] == log.text.encode()


@pytest.mark.parametrize("line", ["step {n}: loss {n}\n", "the same line each time\n"], ids=["told", "alike"])
def test_a_long_log_is_copied_once_by_its_last_lines(tmp_path, line):
    copy, log, written = tmp_path / "stdout.log", Log(), 0
    for size in (TAIL_LINES - 3, 5, 7000, TAIL_LINES + 50, 1):
        log.text += "".join(line.format(n=n) for n in range(written, written + size))
        written += size
        follow(copy, log, final=False)
        assert read_from(copy, 0)[0] == log.text.encode()
    if "{n}" in line:
        assert log.asked.count(None) == 1  # where the last lines did not reach back to the copy


def test_lines_that_an_sdk_no_longer_gives_are_marked(tmp_path):
    copy, log = tmp_path / "stdout.log", Log(limit=100)
    log.text = "".join(f"line {n}\n" for n in range(50))
    follow(copy, log, final=False)
    log.text += "".join(f"line {n}\n" for n in range(50, 120))
    follow(copy, log, final=False)
    assert read_from(copy, 0)[0] == log.text.encode()
    log.text += "".join(f"line {n}\n" for n in range(120, 400))
    follow(copy, log, final=False)
    lines = read_from(copy, 0)[0].splitlines(keepends=True)
    assert lines[120] == GAP
    assert lines[121] == b"line 300\n"
    assert len(lines) == 221


def test_a_log_that_begins_anew_is_kept_after_the_old_one(tmp_path):
    copy, log = tmp_path / "stdout.log", Log()
    log.text = "first attempt\nhalf a"
    follow(copy, log, final=False)
    log.text = "second attempt, on another node\n"
    follow(copy, log, final=True)
    assert read_from(copy, 0)[0] == b"first attempt\nhalf a\n" + GAP + b"second attempt, on another node\n"


def test_an_old_answer_takes_nothing_back(tmp_path):
    copy, log = tmp_path / "stdout.log", Log()
    for log.text in ("one\ntwo\n", "one\n", "", "one\ntwo\nthree\n"):
        follow(copy, log, final=False)
    assert read_from(copy, 0)[0] == b"one\ntwo\nthree\n"


def test_half_a_character_is_left_for_the_next_look(tmp_path):
    copy, log = tmp_path / "stdout.log", Log()
    log.text = "gr\ufffd"
    follow(copy, log, final=False)
    log.text = "grün \ufffd"
    follow(copy, log, final=True)
    assert read_from(copy, 0)[0].decode() == "grün \ufffd"


def test_a_copy_that_another_process_makes_is_left_to_it(tmp_path):
    copy = tmp_path / "stdout.log"
    with held(copy.with_suffix(".lock")):
        follow(copy, lambda tail: "text", final=False)
    assert not copy.exists()


def test_overlaps_are_counted_from_the_longest():
    line = b"x" * 99 + b"\n"
    assert overlaps(line * 3, line * 3) == [300, 200]
    assert overlaps(b"a" + line, line + b"b") == [100]
    assert overlaps(line, b"short") == []


def test_keys_are_seen_wherever_they_stand():
    assert shows_key({"a": [{"b": "run@key-1"}]}, "key-1")
    assert shows_key(("x", ["key-1"]), "key-1")
    assert not shows_key({"key-1": 1, "n": None}, "key-1")


def test_words_with_quotes_are_said_as_they_are(make_step, tmp_path):
    text = shell_command(make_step(argv=("it's",)))
    assert "it'\"'\"'s: no such program" in text
    assert text.splitlines()[0].startswith(f"cd -- {tmp_path}")


# -- the real thing -----------------------------------------------------------------------------------------


@pytest.fixture
def virtual_sdk(tmp_path):
    """Opens nvidia-tao-sdk's VirtualEnvSDK over this interpreter's own environment."""
    module = pytest.importorskip("tao_sdk.platforms.virtualenv", reason="peer: nvidia-tao-sdk is missing")
    opened = []

    def open_one():
        sdk = module.VirtualEnvSDK(
            sys.prefix, work_dir=tmp_path / "tao", state_file=tmp_path / "tao" / "s.db"
        )
        opened.append(sdk)
        return sdk

    yield open_one
    for sdk in opened:
        for thread in [t for t in threading.enumerate() if t.name.startswith("tao-virtualenv")]:
            thread.join(10)
        sdk._store.close()


TRAINING = """
import os, sys, time
print("lr", sys.argv[1], os.environ["A"], flush=True)
open(os.environ["STARTS"], "a").write("started\\n")
while not os.path.exists("go"):
    time.sleep(0.01)
print("loss: 0.5", flush=True)
sys.exit(int(sys.argv[2]))
"""


@pytest.fixture
def training(tmp_path, make_step):
    """A step that runs a training script."""
    (tmp_path / "train.py").write_text(TRAINING)

    def make(status):
        variables = {"A": "b", "STARTS": str(tmp_path / "starts")}
        return make_step(argv=("python", "train.py", "0.1", str(status)), env=variables)

    return make


def open_real(open_sdk, sdk):
    return open_sdk(sdk, clock=utc_now)


@pytest.mark.parametrize(("status", "state"), [(0, JobState.SUCCEEDED), (3, JobState.FAILED)])
def test_virtualenv_runs_a_script(open_sdk, virtual_sdk, training, ended, tmp_path, status, state):
    backend = open_real(open_sdk, virtual_sdk())
    (tmp_path / "go").touch()
    backend.submit(training(status), "key-1")
    report = ended(backend, "key-1")
    assert (report.state, report.exit_code) == (state, status)
    assert backend.logs("key-1", "stdout")[0] == b"lr 0.1 b\nloss: 0.5\n"
    assert poll(open_real(open_sdk, virtual_sdk()), "key-1") == report


def test_virtualenv_can_be_cancelled(open_sdk, virtual_sdk, training, ended, tmp_path, wait_until):
    backend = open_real(open_sdk, virtual_sdk())
    backend.submit(training(0), "key-1")
    wait_until((tmp_path / "starts").exists)
    assert ended(backend, "key-1", cancel=True).state is JobState.CANCELLED


def test_virtualenv_is_asked_for_a_job_whose_launch_was_cut_off(
    open_sdk, virtual_sdk, training, ended, tmp_path, wait_until
):
    sdk = dying(virtual_sdk(), when="after")
    killed(lambda: open_real(open_sdk, sdk).submit(training(0), "key-1"))
    backend = open_real(open_sdk, virtual_sdk())
    backend.submit(training(0), "key-1")
    wait_until(lambda: poll(backend, "key-1").state is JobState.RUNNING)
    (tmp_path / "go").touch()
    assert ended(backend, "key-1").state is JobState.SUCCEEDED
    assert (tmp_path / "starts").read_text() == "started\n"
    assert Path(tmp_path / "tao" / "jobs" / backend.job_id("key-1")).is_dir()
