"""The contract of `modelyard.jobs.backend.Backend` as tests: every backend, ours or a plugin's, passes it.

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def settings(self, tmp_path): return contract_settings(tmp_path / "state")
        @pytest.fixture
        def reopen(self, settings): return lambda: MyBackend(settings)
        @pytest.fixture
        def backend(self, reopen): return reopen()

`reopen` gives a new backend over the same state, as the next process would. The commands are run by
`/bin/sh` and this Python, and share the folder of the test with it. It knows no backend; a wait ends
when what it waits for holds, and fails only after a generous deadline.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from modelyard.core.processes import started_ticks
from modelyard.jobs.backend import Backend, BackendSettings
from modelyard.jobs.job import JobState, Report, job_key
from modelyard.jobs.step import Resources, Step

#: What a backend under this contract is opened with.
SLOTS = 2
GPUS = ("0", "1", "2")
GRACE_S = 0.5
SECRET_NAME, SECRET_VALUE = "CONTRACT_WORD", "xyzzy-7f3a-contract"

DEADLINE_S = 60.0
T = TypeVar("T")
Reopen = Callable[[], Backend]

#: A command that nothing but SIGKILL ends, with a child that left its session and a grandchild of that.
_STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def note(name):
    with open(os.path.join(sys.argv[1], name + ".tmp"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(os.path.join(sys.argv[1], name + ".tmp"), os.path.join(sys.argv[1], name))
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note("grandchild.pid")
    else:
        note("child.pid")
else:
    note("command.pid")
time.sleep(600)
"""


def contract_settings(jobs_dir: Path) -> BackendSettings:
    """The settings that the contract's tests count on."""
    environment = {**os.environ, SECRET_NAME: SECRET_VALUE}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    return BackendSettings(
        jobs_dir=jobs_dir, environment=environment, slots=SLOTS, gpus=GPUS, grace_s=GRACE_S
    )


def wait_until(condition: Callable[[], T], *, what: str) -> T:
    """Wait for a condition and give what it gave; fail after a long time."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {DEADLINE_S:g} s for {what}")
        time.sleep(0.01)
    return value


def settle(backend: Backend, native_ids: Sequence[str]) -> Mapping[str, Report]:
    """Wait until every job has ended, and give the reports."""

    def final() -> Mapping[str, Report] | None:
        reports = backend.poll(native_ids)
        if all(report.state.final for report in reports.values()):
            return reports
        backend.wait(0.05)
        return None

    return wait_until(final, what=f"the end of {len(native_ids)} jobs") or {}


def lines_of(path: Path) -> list[str]:
    """The lines of a file that a job may not have written yet."""
    return path.read_text().splitlines() if path.exists() else []


class Yard:
    """One test's steps and jobs: names keys, and stops what a failed test left running."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend = backend
        self.folder = folder
        self._numbers = itertools.count()
        self._submitted: list[str] = []

    def step(self, script: str = "true", **fields: Any) -> Step:
        """A step of one shell script, or of the given `argv`."""
        command = {} if "argv" in fields else {"argv": (script,), "shell": True}
        return Step(**{"name": f"step-{next(self._numbers)}", "cwd": str(self.folder), **command, **fields})

    def python(self, code: str, *words: str, **fields: Any) -> Step:
        """A step of a Python program."""
        return self.step(argv=(sys.executable, "-c", code, *words), **fields)

    def key(self, step: Step, attempt: int = 1) -> str:
        """The key of an attempt in this test."""
        return job_key(
            yard=str(self.folder), run="contract", step=step.name, step_digest="-", attempt=attempt
        )

    def submit(self, step: Step, *, backend: Backend | None = None) -> str:
        """Submit a step under its key."""
        native_id = (backend or self.backend).submit(step, self.key(step))
        self._submitted.append(native_id)
        return native_id

    def run(self, step: Step) -> tuple[str, Report]:
        """Submit a step and wait for its end."""
        native_id = self.submit(step)
        return native_id, settle(self.backend, [native_id])[native_id]

    def output(self, native_id: str, stream: str = "stdout") -> str:
        """All that a job has written so far."""
        return self.backend.logs(native_id, stream)[0].decode()

    def end(self) -> None:
        """Stop whatever still runs."""
        running = [i for i, r in self.backend.poll(self._submitted).items() if not r.state.final]
        if running:
            self.backend.cancel(running)
            settle(self.backend, running)


class BackendContract:
    """Every promise of the protocol. Subclasses give the fixtures `settings`, `reopen` and `backend`."""

    @pytest.fixture
    def yard(self, backend: Backend, tmp_path: Path) -> Iterator[Yard]:
        """Steps and jobs of one test."""
        folder = tmp_path / "work"
        folder.mkdir()
        one = Yard(backend, folder)
        yield one
        one.end()

    # -- render ----------------------------------------------------------------------------------------

    def test_rendering_is_pure_and_gives_json(self, yard: Yard, settings: BackendSettings) -> None:
        step = yard.step(
            "run",
            env={"LR": "0.1"},
            secrets=(SECRET_NAME,),
            resources=Resources(cpus=2, gpus=1, memory_gib=1.5),
            timeout_s=60.0,
        )
        before, kept = dataclasses.replace(step), sorted(settings.jobs_dir.rglob("*"))
        request = yard.backend.render(step)
        assert yard.backend.render(step) == request
        assert step == before
        assert request.step == step.name
        assert json.loads(json.dumps(request.body, allow_nan=False)) == request.body
        assert SECRET_VALUE not in json.dumps(request.body)
        assert sorted(settings.jobs_dir.rglob("*")) == kept
        assert yard.backend.find(yard.key(step)) is None

    def test_rendering_does_not_need_what_the_step_names_to_exist(self, yard: Yard) -> None:
        step = yard.step(argv=("/no/such/program",), cwd="/no/such/folder", inputs=("/no/such/file",))
        assert yard.backend.render(step).step == step.name

    # -- how commands run ------------------------------------------------------------------------------

    def test_a_command_runs_in_its_folder_and_its_end_is_reported(self, yard: Yard) -> None:
        native_id, report = yard.run(yard.step("pwd; echo trouble >&2"))
        assert (report.state, report.exit_code) == (JobState.SUCCEEDED, 0)
        assert yard.output(native_id) == f"{yard.folder.resolve()}\n"
        assert yard.output(native_id, "stderr") == "trouble\n"
        assert report.started_at is not None
        assert report.finished_at is not None
        assert report.started_at <= report.finished_at

    def test_the_words_of_an_argv_arrive_as_they_are(self, yard: Yard) -> None:
        words = ("a b", "", "'", '"', "$(id)", "`id`", "; echo out", "{x}", "*", "~", "line\nline", "é")
        code = "import json, sys; print(json.dumps(sys.argv[1:]))"
        native_id, report = yard.run(yard.python(code, *words))
        assert report.state is JobState.SUCCEEDED
        assert json.loads(yard.output(native_id)) == list(words)

    def test_the_command_sees_its_variables(self, yard: Yard) -> None:
        step = yard.step(
            'echo "$LR|$PATH|$MODELYARD_SEED|$MODELYARD_CPUS|$MODELYARD_STEP"',
            env={"LR": "a b"},
            seed=7,
            resources=Resources(cpus=2),
        )
        native_id, _ = yard.run(step)
        assert yard.output(native_id) == f"a b|{os.environ['PATH']}|7|2|{step.name}\n"

    def test_nothing_can_be_read_from_standard_input(self, yard: Yard) -> None:
        native_id, report = yard.run(yard.step("cat; echo end"))
        assert (report.state, yard.output(native_id)) == (JobState.SUCCEEDED, "end\n")

    @pytest.mark.parametrize("code", [1, 3, 127, 255])
    def test_the_exit_status_is_kept(self, yard: Yard, code: int) -> None:
        _, report = yard.run(yard.step(f"exit {code}"))
        assert (report.state, report.exit_code, report.reason) == (JobState.FAILED, code, "exit")

    def test_a_death_by_signal_is_told_from_an_exit(self, yard: Yard) -> None:
        native_id, report = yard.run(yard.step("kill -KILL $$"))
        assert (report.state, report.exit_code, report.reason) == (JobState.FAILED, -signal.SIGKILL, "signal")
        assert yard.backend.explain(native_id, report).cause == "signal"

    def test_a_program_that_is_not_there_fails_the_job(self, yard: Yard) -> None:
        native_id, report = yard.run(yard.step(argv=("no-such-program-of-the-contract",)))
        assert (report.state, report.reason) == (JobState.FAILED, "start")
        assert "no-such-program-of-the-contract" in report.detail
        assert yard.backend.explain(native_id, report).cause == "missing_program"

    def test_a_folder_that_is_not_there_fails_the_job(self, yard: Yard) -> None:
        _, report = yard.run(yard.step(cwd="/no/such/folder"))
        assert (report.state, report.reason) == (JobState.FAILED, "start")
        assert "/no/such/folder" in report.detail

    def test_what_a_command_leaves_running_ends_with_it(self, yard: Yard) -> None:
        _, report = yard.run(yard.step("sleep 600 & echo $! > left.pid"))
        assert report.state is JobState.SUCCEEDED
        (left,) = lines_of(yard.folder / "left.pid")
        wait_until(lambda: not started_ticks(int(left)), what="the end of the child left behind")

    # -- submit and find -------------------------------------------------------------------------------

    def test_a_key_is_found_from_its_submission_on_and_for_ever(self, yard: Yard, reopen: Reopen) -> None:
        step = yard.step()
        assert yard.backend.find(yard.key(step)) is None
        native_id, _ = yard.run(step)
        assert yard.backend.find(yard.key(step)) == native_id
        later = reopen()
        assert later.find(yard.key(step)) == native_id
        assert later.poll([native_id])[native_id].state is JobState.SUCCEEDED
        assert later.find(yard.key(step, attempt=2)) is None

    def test_submitting_again_starts_nothing_new(self, yard: Yard, reopen: Reopen) -> None:
        step = yard.step("echo started >> starts; while [ ! -e go ]; do sleep 0.01; done")
        native_id = yard.submit(step)
        assert yard.submit(step) == native_id
        assert yard.submit(step, backend=reopen()) == native_id
        wait_until(lambda: lines_of(yard.folder / "starts"), what="the start")
        assert yard.submit(step) == native_id
        (yard.folder / "go").touch()
        settle(yard.backend, [native_id])
        assert yard.submit(step) == native_id
        assert yard.submit(step, backend=reopen()) == native_id
        assert settle(yard.backend, [native_id])[native_id].state is JobState.SUCCEEDED
        assert lines_of(yard.folder / "starts") == ["started"]

    def test_two_processes_that_submit_one_key_at_once_start_it_once(
        self, yard: Yard, reopen: Reopen
    ) -> None:
        for _ in range(3):
            step = yard.step()
            step = dataclasses.replace(step, argv=(f"echo started >> {step.name}; sleep 0.05",))
            submitters = [_fork(lambda step=step: reopen().submit(step, yard.key(step))) for _ in range(2)]  # type: ignore[misc]
            assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in submitters] == [0, 0]
            native_id = wait_until(lambda key=yard.key(step): yard.backend.find(key), what="the job")  # type: ignore[misc]
            assert settle(yard.backend, [native_id])[native_id].state is JobState.SUCCEEDED
            assert lines_of(yard.folder / step.name) == ["started"]

    def test_a_job_outlives_the_process_that_submitted_it(self, yard: Yard, reopen: Reopen) -> None:
        step = yard.step("echo begun > begun; while [ ! -e go ]; do sleep 0.01; done; echo done")

        def submit_and_stay() -> None:
            reopen().submit(step, yard.key(step))
            time.sleep(600)

        submitter = _fork(submit_and_stay)
        try:
            wait_until(lambda: lines_of(yard.folder / "begun"), what="the start")
        finally:
            os.kill(submitter, signal.SIGKILL)
            os.waitpid(submitter, 0)
        native_id = yard.backend.find(yard.key(step))
        assert native_id is not None
        assert yard.backend.poll([native_id])[native_id].state is JobState.RUNNING
        (yard.folder / "go").touch()
        assert settle(yard.backend, [native_id])[native_id].state is JobState.SUCCEEDED
        assert yard.output(native_id) == "done\n"

    # -- poll ------------------------------------------------------------------------------------------

    def test_one_call_tells_of_all_jobs(self, yard: Yard) -> None:
        ids = [yard.submit(yard.step(f"exit {code}")) for code in range(5)]
        waiting = yard.submit(yard.step("while [ ! -e go ]; do sleep 0.01; done"))
        settle(yard.backend, ids)
        reports = yard.backend.poll([*ids, waiting])
        assert list(reports) == [*ids, waiting]
        assert [reports[i].exit_code for i in ids] == [0, 1, 2, 3, 4]
        assert not reports[waiting].state.final
        (yard.folder / "go").touch()
        assert settle(yard.backend, [waiting])[waiting].state is JobState.SUCCEEDED
        assert yard.backend.poll([]) == {}

    def test_a_final_report_does_not_change(self, yard: Yard, reopen: Reopen) -> None:
        native_id, report = yard.run(yard.step("exit 3"))
        assert yard.backend.poll([native_id])[native_id] == report
        yard.backend.cancel([native_id])
        assert reopen().poll([native_id])[native_id] == report

    def test_waiting_with_nothing_to_wait_for_comes_back(self, yard: Yard) -> None:
        yard.backend.wait(0.0)
        yard.run(yard.step())
        yard.backend.wait(0.0)

    # -- cancel and limits -----------------------------------------------------------------------------

    def test_a_cancelled_job_can_end_in_its_own_way(self, yard: Yard) -> None:
        native_id = yard.submit(
            yard.step("trap 'echo saved; exit 0' TERM; echo > ready; while :; do sleep 0.01; done")
        )
        wait_until((yard.folder / "ready").exists, what="the trap")
        yard.backend.cancel([native_id])
        report = settle(yard.backend, [native_id])[native_id]
        assert (report.state, report.reason) == (JobState.CANCELLED, "cancelled")
        assert yard.output(native_id) == "saved\n"
        assert yard.backend.explain(native_id, report).cause == "cancelled"

    @pytest.mark.parametrize("again", [False, True], ids=["same", "reopened"])
    def test_cancelling_ends_everything_however_stubborn(
        self, yard: Yard, reopen: Reopen, *, again: bool
    ) -> None:
        step = yard.python(_STUBBORN, str(yard.folder))
        native_id = yard.submit(step)
        names = ("command.pid", "child.pid", "grandchild.pid")
        wait_until(lambda: all((yard.folder / n).exists() for n in names), what="three processes")
        pids = [int((yard.folder / name).read_text()) for name in names]
        backend = yard.backend
        if again:
            backend = reopen()
            assert backend.find(yard.key(step)) == native_id
        backend.cancel([native_id])
        assert settle(backend, [native_id])[native_id].state is JobState.CANCELLED
        wait_until(lambda: not any(map(started_ticks, pids)), what="the end of all three")

    def test_a_job_may_be_cancelled_at_once(self, yard: Yard) -> None:
        steps = [yard.step("sleep 600") for _ in range(4)]
        ids = [yard.submit(step) for step in steps]
        yard.backend.cancel(ids)
        reports = settle(yard.backend, ids)
        assert {report.state for report in reports.values()} == {JobState.CANCELLED}

    def test_cancelling_twice_is_cancelling_once(self, yard: Yard) -> None:
        native_id = yard.submit(yard.step("sleep 600"))
        yard.backend.cancel([native_id])
        yard.backend.cancel([native_id])
        assert settle(yard.backend, [native_id])[native_id].state is JobState.CANCELLED
        yard.backend.cancel([native_id])
        assert yard.backend.poll([native_id])[native_id].state is JobState.CANCELLED

    @pytest.mark.parametrize(
        "limit", [{"timeout_s": 0.3}, {"resources": Resources(wall_time_s=0.3), "timeout_s": 600.0}]
    )
    def test_a_job_that_runs_too_long_is_ended(self, yard: Yard, limit: dict[str, Any]) -> None:
        native_id, report = yard.run(yard.python(_STUBBORN, str(yard.folder), **limit))
        assert (report.state, report.reason) == (JobState.FAILED, "timeout")
        assert yard.backend.explain(native_id, report).cause == "timeout"
        for name in ("command.pid", "child.pid", "grandchild.pid"):
            for pid in lines_of(yard.folder / name):
                wait_until(lambda pid=pid: not started_ticks(int(pid)), what=f"the end of {name}")  # type: ignore[misc]

    def test_a_job_within_its_time_is_left_alone(self, yard: Yard) -> None:
        assert yard.run(yard.step("sleep 0.05", timeout_s=600.0))[1].state is JobState.SUCCEEDED

    # -- logs ------------------------------------------------------------------------------------------

    def test_logs_can_be_followed(self, yard: Yard) -> None:
        step = yard.step("printf one; while [ ! -e go ]; do sleep 0.01; done; printf two; printf oops >&2")
        native_id = yard.submit(step)
        wait_until(lambda: yard.output(native_id), what="the first word")
        first, offset = yard.backend.logs(native_id, "stdout")
        assert (first, offset) == (b"one", 3)
        assert yard.backend.logs(native_id, "stdout", offset) == (b"", 3)
        (yard.folder / "go").touch()
        settle(yard.backend, [native_id])
        assert yard.backend.logs(native_id, "stdout", offset) == (b"two", 6)
        assert yard.backend.logs(native_id, "stdout", 1) == (b"netwo", 6)
        assert yard.backend.logs(native_id, "stderr") == (b"oops", 4)

    def test_logs_are_bytes(self, yard: Yard) -> None:
        native_id, _ = yard.run(yard.python(r"import os; os.write(1, bytes(range(256)))"))
        assert yard.backend.logs(native_id, "stdout") == (bytes(range(256)), 256)

    # -- slots -----------------------------------------------------------------------------------------

    def test_what_can_never_fit_says_why(self, yard: Yard) -> None:
        fits = yard.backend.fits
        assert fits(Resources(cpus=SLOTS, gpus=len(GPUS))) == ""
        assert str(SLOTS + 1) in fits(Resources(cpus=SLOTS + 1))
        assert str(len(GPUS) + 1) in fits(Resources(gpus=len(GPUS) + 1))

    def test_slots_are_held_until_the_end_and_across_reopening(self, yard: Yard, reopen: Reopen) -> None:
        one, all_of_them = Resources(cpus=1), Resources(cpus=SLOTS)
        assert yard.backend.free(all_of_them)
        step = yard.step("while [ ! -e go ]; do sleep 0.01; done", resources=all_of_them)
        native_id = yard.submit(step)
        assert not yard.backend.free(one)
        wait_until(
            lambda: yard.backend.poll([native_id])[native_id].state is JobState.RUNNING, what="the start"
        )
        later = reopen()
        assert later.find(yard.key(step)) == native_id
        assert not later.free(one)
        (yard.folder / "go").touch()
        for backend in (yard.backend, later):
            settle(backend, [native_id])
            assert backend.free(all_of_them)

    def test_an_ended_job_that_is_found_holds_nothing(self, yard: Yard, reopen: Reopen) -> None:
        step = yard.step(resources=Resources(cpus=SLOTS))
        yard.run(step)
        later = reopen()
        later.find(yard.key(step))
        assert later.free(Resources(cpus=SLOTS))

    def test_no_gpu_is_given_out_twice(self, yard: Yard, reopen: Reopen) -> None:
        script = "echo $CUDA_VISIBLE_DEVICES; while [ ! -e go ]; do sleep 0.01; done"
        steps = [yard.step(script, resources=Resources(gpus=1)) for _ in range(2)]
        ids = [yard.submit(step) for step in steps]
        yard.submit(steps[0])  # again, before or after it began: nothing changes
        assert not yard.backend.free(Resources(cpus=0, gpus=2))
        later = reopen()
        wait_until(lambda: all(later.find(yard.key(step)) for step in steps), what="both jobs")
        assert not later.free(Resources(cpus=0, gpus=2))
        assert later.free(Resources(cpus=0, gpus=1))
        last = yard.step(script, resources=Resources(gpus=1))
        ids.append(yard.submit(last, backend=later))
        wait_until(lambda: all(map(yard.output, ids)), what="all three")
        assert sorted(yard.output(i).strip() for i in ids) == sorted(GPUS)
        (yard.folder / "go").touch()
        settle(yard.backend, ids)

    def test_a_job_without_gpus_sees_none_and_one_with_several_sees_as_many(self, yard: Yard) -> None:
        none, _ = yard.run(yard.step('echo "[$CUDA_VISIBLE_DEVICES]"'))
        many, _ = yard.run(yard.step('echo "[$CUDA_VISIBLE_DEVICES]"', resources=Resources(gpus=2)))
        assert yard.output(none) == "[]\n"
        given = yard.output(many).strip().strip("[]").split(",")
        assert len(set(given)) == 2
        assert set(given) <= set(GPUS)

    # -- secrets and the record ------------------------------------------------------------------------

    def test_secrets_reach_the_command_and_no_file(self, yard: Yard, settings: BackendSettings) -> None:
        code = f"import os, sys; sys.exit(os.environ[{SECRET_NAME!r}] != sys.argv[1][::-1])"
        step = yard.python(code, SECRET_VALUE[::-1], secrets=(SECRET_NAME,))
        _, report = yard.run(step)
        assert report.state is JobState.SUCCEEDED
        kept = {path: path.read_bytes() for path in settings.jobs_dir.rglob("*") if path.is_file()}
        assert kept
        assert [path for path, data in kept.items() if SECRET_VALUE.encode() in data] == []

    def test_what_the_command_could_see_is_recorded(self, yard: Yard, settings: BackendSettings) -> None:
        yard.run(yard.step(env={"CONTRACT_SETTING": "plain-value-4711"}, secrets=(SECRET_NAME,)))
        kept = b"".join(path.read_bytes() for path in settings.jobs_dir.rglob("*") if path.is_file())
        for word in ("CONTRACT_SETTING", "plain-value-4711", SECRET_NAME):
            assert word.encode() in kept

    # -- explain ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("line", "cause", "retry"),
        [
            ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out_of_memory", False),
            ("ModuleNotFoundError: No module named 'xformers'", "missing_module", False),
            ("OSError: [Errno 28] No space left on device", "no_disk", False),
            ("requests.exceptions.ConnectionError: Connection refused", "network", True),
        ],
    )  # fmt: skip
    def test_a_failure_is_explained_by_its_telling_line(
        self, yard: Yard, line: str, cause: str, *, retry: bool
    ) -> None:
        script = f"echo starting; echo {shlex.quote(line)} >&2; echo cleaning up >&2; exit 1"
        native_id, report = yard.run(yard.step(script))
        analysis = yard.backend.explain(native_id, report)
        assert (analysis.cause, analysis.retry) == (cause, retry)
        assert analysis.lines == (line,)

    def test_a_plain_failure_shows_its_last_lines(self, yard: Yard) -> None:
        native_id, report = yard.run(yard.step("echo first; echo second; exit 3"))
        analysis = yard.backend.explain(native_id, report)
        assert (analysis.cause, analysis.lines) == ("exit", ("first", "second"))

    def test_a_success_needs_no_explanation(self, yard: Yard) -> None:
        native_id, report = yard.run(yard.step("echo out of memory"))
        assert yard.backend.explain(native_id, report).cause == "none"


def _fork(action: Callable[[], object]) -> int:
    """Another process that does one thing and ends without the tests' own clean-up."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return pid
