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
import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from modelyard.jobs.backend import Backend, BackendSettings, gathered
from modelyard.jobs.job import JobState
from modelyard.jobs.step import Resources, Step
from modelyard.testing.bench import (
    GPUS,
    SECRET_NAME,
    SECRET_VALUE,
    SLOTS,
    STUBBORN,
    Bench,
    fork,
    is_gone,
    lines_of,
    settle,
    wait_until,
)

Reopen = Callable[[], Backend]


class BackendContract:
    """Every promise of the protocol. Subclasses give the fixtures `settings`, `reopen` and `backend`."""

    @pytest.fixture
    def bench(self, backend: Backend, tmp_path: Path) -> Iterator[Bench]:
        """Steps and jobs of one test."""
        folder = tmp_path / "work"
        folder.mkdir()
        one = Bench(backend, folder)
        yield one
        one.end()

    # -- render ----------------------------------------------------------------------------------------

    def test_rendering_is_pure_and_gives_json(self, bench: Bench, settings: BackendSettings) -> None:
        step = bench.step(
            "run",
            env={"LR": "0.1"},
            secrets=(SECRET_NAME,),
            resources=Resources(cpus=2, gpus=1, memory_gib=1.5),
            timeout_s=60.0,
        )
        before, kept = dataclasses.replace(step), sorted(settings.jobs_dir.rglob("*"))
        request = bench.backend.render(step)
        assert bench.backend.render(step) == request
        assert step == before
        assert request.step == step.name
        assert json.loads(json.dumps(request.body, allow_nan=False)) == request.body
        assert SECRET_VALUE not in json.dumps(request.body)
        assert sorted(settings.jobs_dir.rglob("*")) == kept
        assert bench.backend.find(bench.key(step)) is None

    def test_rendering_does_not_need_what_the_step_names_to_exist(self, bench: Bench) -> None:
        step = bench.step(argv=("/no/such/program",), cwd="/no/such/folder", inputs=("/no/such/file",))
        assert bench.backend.render(step).step == step.name

    # -- how commands run ------------------------------------------------------------------------------

    def test_a_command_runs_in_its_folder_and_its_end_is_reported(self, bench: Bench) -> None:
        native_id, report = bench.run(bench.step("pwd; echo trouble >&2"))
        assert (report.state, report.exit_code) == (JobState.SUCCEEDED, 0)
        assert bench.output(native_id) == f"{bench.folder.resolve()}\n"
        assert bench.output(native_id, "stderr") == "trouble\n"
        assert report.started_at is not None
        assert report.finished_at is not None
        assert report.started_at <= report.finished_at

    def test_the_words_of_an_argv_arrive_as_they_are(self, bench: Bench) -> None:
        words = ("a b", "", "'", '"', "$(id)", "`id`", "; echo out", "{x}", "*", "~", "line\nline", "é")
        code = "import json, sys; print(json.dumps(sys.argv[1:]))"
        native_id, report = bench.run(bench.python(code, *words))
        assert report.state is JobState.SUCCEEDED
        assert json.loads(bench.output(native_id)) == list(words)

    def test_the_command_sees_its_variables(self, bench: Bench) -> None:
        step = bench.step(
            'echo "$LR|$PATH|$MODELYARD_SEED|$MODELYARD_CPUS|$MODELYARD_STEP"',
            env={"LR": "a b"},
            seed=7,
            resources=Resources(cpus=2),
        )
        native_id, _ = bench.run(step)
        assert bench.output(native_id) == f"a b|{os.environ['PATH']}|7|2|{step.name}\n"

    def test_nothing_can_be_read_from_standard_input(self, bench: Bench) -> None:
        native_id, report = bench.run(bench.step("cat; echo end"))
        assert (report.state, bench.output(native_id)) == (JobState.SUCCEEDED, "end\n")

    @pytest.mark.parametrize("code", [1, 3, 127, 255])
    def test_the_exit_status_is_kept(self, bench: Bench, code: int) -> None:
        _, report = bench.run(bench.step(f"exit {code}"))
        assert (report.state, report.exit_code, report.reason) == (JobState.FAILED, code, "exit")

    def test_a_death_by_signal_is_told_from_an_exit(self, bench: Bench) -> None:
        native_id, report = bench.run(bench.step("kill -KILL $$"))
        assert (report.state, report.exit_code, report.reason) == (JobState.FAILED, -signal.SIGKILL, "signal")
        assert bench.backend.explain(native_id, report).cause == "signal"

    def test_a_program_that_is_not_there_fails_the_job(self, bench: Bench) -> None:
        native_id, report = bench.run(bench.step(argv=("no-such-program-of-the-contract",)))
        assert (report.state, report.reason) == (JobState.FAILED, "start")
        assert "no-such-program-of-the-contract" in report.detail
        assert bench.backend.explain(native_id, report).cause == "missing_program"

    def test_a_folder_that_is_not_there_fails_the_job(self, bench: Bench) -> None:
        _, report = bench.run(bench.step(cwd="/no/such/folder"))
        assert (report.state, report.reason) == (JobState.FAILED, "start")
        assert "/no/such/folder" in report.detail

    def test_what_a_command_leaves_running_ends_with_it(self, bench: Bench) -> None:
        _, report = bench.run(bench.step("sleep 600 & echo $! > left.pid"))
        assert report.state is JobState.SUCCEEDED
        (left,) = lines_of(bench.folder / "left.pid")
        wait_until(partial(is_gone, int(left)), what="the end of the child left behind")

    # -- submit and find -------------------------------------------------------------------------------

    def test_a_key_is_found_from_its_submission_on_and_for_ever(self, bench: Bench, reopen: Reopen) -> None:
        step = bench.step()
        assert bench.backend.find(bench.key(step)) is None
        native_id, _ = bench.run(step)
        assert bench.backend.find(bench.key(step)) == native_id
        later = reopen()
        assert later.find(bench.key(step)) == native_id
        assert later.poll([native_id])[native_id].state is JobState.SUCCEEDED
        assert later.find(bench.key(step, attempt=2)) is None

    def test_submitting_again_starts_nothing_new(self, bench: Bench, reopen: Reopen) -> None:
        step = bench.step("echo started >> starts; while [ ! -e go ]; do sleep 0.01; done")
        native_id = bench.submit(step)
        assert bench.submit(step) == native_id
        assert bench.submit(step, backend=reopen()) == native_id
        wait_until(lambda: lines_of(bench.folder / "starts"), what="the start")
        assert bench.submit(step) == native_id
        (bench.folder / "go").touch()
        settle(bench.backend, [native_id])
        assert bench.submit(step) == native_id
        assert bench.submit(step, backend=reopen()) == native_id
        assert settle(bench.backend, [native_id])[native_id].state is JobState.SUCCEEDED
        assert lines_of(bench.folder / "starts") == ["started"]

    def test_what_is_submitted_together_starts_once(self, bench: Bench, reopen: Reopen) -> None:
        steps = [
            bench.step(f'echo "$MODELYARD_STEP $N" >> starts; exit {n}', env={"N": str(n)}) for n in range(3)
        ]
        with gathered(bench.backend):
            ids = [bench.submit(step) for step in steps]
            assert [bench.submit(step) for step in steps] == ids
        later = reopen()
        for step, native_id in zip(steps, ids, strict=True):
            assert wait_until(partial(later.find, bench.key(step)), what="the job") == native_id
        assert [report.exit_code for report in settle(bench.backend, ids).values()] == [0, 1, 2]
        wanted = [f"{step.name} {n}" for n, step in enumerate(steps)]
        assert sorted(lines_of(bench.folder / "starts")) == sorted(wanted)

    def test_two_processes_that_submit_one_key_at_once_start_it_once(
        self, bench: Bench, reopen: Reopen
    ) -> None:
        def submit(step: Step) -> None:
            reopen().submit(step, bench.key(step))

        for _ in range(3):
            step = bench.step()
            step = dataclasses.replace(step, argv=(f"echo started >> {step.name}; sleep 0.05",))
            submitters = [fork(partial(submit, step)) for _ in range(2)]
            assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in submitters] == [0, 0]
            native_id = wait_until(partial(bench.backend.find, bench.key(step)), what="the job") or ""
            assert settle(bench.backend, [native_id])[native_id].state is JobState.SUCCEEDED
            assert lines_of(bench.folder / step.name) == ["started"]

    def test_a_job_outlives_the_process_that_submitted_it(self, bench: Bench, reopen: Reopen) -> None:
        step = bench.step("echo begun > begun; while [ ! -e go ]; do sleep 0.01; done; echo done")

        def submit_and_stay() -> None:
            reopen().submit(step, bench.key(step))
            time.sleep(600)

        submitter = fork(submit_and_stay)
        try:
            wait_until(lambda: lines_of(bench.folder / "begun"), what="the start")
        finally:
            os.kill(submitter, signal.SIGKILL)
            os.waitpid(submitter, 0)
        native_id = bench.backend.find(bench.key(step))
        assert native_id is not None
        assert bench.backend.poll([native_id])[native_id].state is JobState.RUNNING
        (bench.folder / "go").touch()
        assert settle(bench.backend, [native_id])[native_id].state is JobState.SUCCEEDED
        assert bench.output(native_id) == "done\n"

    # -- poll ------------------------------------------------------------------------------------------

    def test_one_call_tells_of_all_jobs(self, bench: Bench) -> None:
        ids = [bench.submit(bench.step(f"exit {code}")) for code in range(5)]
        waiting = bench.submit(bench.step("while [ ! -e go ]; do sleep 0.01; done"))
        settle(bench.backend, ids)
        reports = bench.backend.poll([*ids, waiting])
        assert list(reports) == [*ids, waiting]
        assert [reports[i].exit_code for i in ids] == [0, 1, 2, 3, 4]
        assert not reports[waiting].state.final
        (bench.folder / "go").touch()
        assert settle(bench.backend, [waiting])[waiting].state is JobState.SUCCEEDED
        assert bench.backend.poll([]) == {}

    def test_a_final_report_does_not_change(self, bench: Bench, reopen: Reopen) -> None:
        native_id, report = bench.run(bench.step("exit 3"))
        assert bench.backend.poll([native_id])[native_id] == report
        bench.backend.cancel([native_id])
        assert reopen().poll([native_id])[native_id] == report

    def test_waiting_with_nothing_to_wait_for_comes_back(self, bench: Bench) -> None:
        bench.backend.wait(0.0)
        bench.run(bench.step())
        bench.backend.wait(0.0)

    # -- cancel and limits -----------------------------------------------------------------------------

    def test_a_cancelled_job_can_end_in_its_own_way(self, bench: Bench) -> None:
        native_id = bench.submit(
            bench.step("trap 'echo saved; exit 0' TERM; echo > ready; while :; do sleep 0.01; done")
        )
        wait_until((bench.folder / "ready").exists, what="the trap")
        bench.backend.cancel([native_id])
        report = settle(bench.backend, [native_id])[native_id]
        assert (report.state, report.reason) == (JobState.CANCELLED, "cancelled")
        assert bench.output(native_id) == "saved\n"
        assert bench.backend.explain(native_id, report).cause == "cancelled"

    @pytest.mark.parametrize("again", [False, True], ids=["same", "reopened"])
    def test_cancelling_ends_everything_however_stubborn(
        self, bench: Bench, reopen: Reopen, *, again: bool
    ) -> None:
        step = bench.python(STUBBORN, str(bench.folder))
        native_id = bench.submit(step)
        names = ("command.pid", "child.pid", "grandchild.pid")
        wait_until(lambda: all((bench.folder / n).exists() for n in names), what="three processes")
        pids = [int((bench.folder / name).read_text()) for name in names]
        backend = bench.backend
        if again:
            backend = reopen()
            assert backend.find(bench.key(step)) == native_id
        backend.cancel([native_id])
        assert settle(backend, [native_id])[native_id].state is JobState.CANCELLED
        wait_until(lambda: all(map(is_gone, pids)), what="the end of all three")

    def test_a_job_may_be_cancelled_at_once(self, bench: Bench) -> None:
        steps = [bench.step("sleep 600") for _ in range(4)]
        ids = [bench.submit(step) for step in steps]
        bench.backend.cancel(ids)
        reports = settle(bench.backend, ids)
        assert {report.state for report in reports.values()} == {JobState.CANCELLED}

    def test_cancelling_twice_is_cancelling_once(self, bench: Bench) -> None:
        native_id = bench.submit(bench.step("sleep 600"))
        bench.backend.cancel([native_id])
        bench.backend.cancel([native_id])
        assert settle(bench.backend, [native_id])[native_id].state is JobState.CANCELLED
        bench.backend.cancel([native_id])
        assert bench.backend.poll([native_id])[native_id].state is JobState.CANCELLED

    @pytest.mark.parametrize(
        "limit", [{"timeout_s": 0.3}, {"resources": Resources(wall_time_s=0.3), "timeout_s": 600.0}]
    )
    def test_a_job_that_runs_too_long_is_ended(self, bench: Bench, limit: dict[str, Any]) -> None:
        native_id, report = bench.run(bench.python(STUBBORN, str(bench.folder), **limit))
        assert (report.state, report.reason) == (JobState.FAILED, "timeout")
        assert bench.backend.explain(native_id, report).cause == "timeout"
        for name in ("command.pid", "child.pid", "grandchild.pid"):
            for pid in lines_of(bench.folder / name):
                wait_until(partial(is_gone, int(pid)), what=f"the end of {name}")

    def test_a_job_within_its_time_is_left_alone(self, bench: Bench) -> None:
        assert bench.run(bench.step("sleep 0.05", timeout_s=600.0))[1].state is JobState.SUCCEEDED

    # -- logs ------------------------------------------------------------------------------------------

    def test_logs_can_be_followed(self, bench: Bench) -> None:
        step = bench.step("printf one; while [ ! -e go ]; do sleep 0.01; done; printf two; printf oops >&2")
        native_id = bench.submit(step)
        wait_until(lambda: bench.output(native_id), what="the first word")
        first, offset = bench.backend.logs(native_id, "stdout")
        assert (first, offset) == (b"one", 3)
        assert bench.backend.logs(native_id, "stdout", offset) == (b"", 3)
        (bench.folder / "go").touch()
        settle(bench.backend, [native_id])
        assert bench.backend.logs(native_id, "stdout", offset) == (b"two", 6)
        assert bench.backend.logs(native_id, "stdout", 1) == (b"netwo", 6)
        assert bench.backend.logs(native_id, "stderr") == (b"oops", 4)

    def test_logs_are_bytes(self, bench: Bench) -> None:
        native_id, _ = bench.run(bench.python(r"import os; os.write(1, bytes(range(256)))"))
        assert bench.backend.logs(native_id, "stdout") == (bytes(range(256)), 256)

    # -- slots -----------------------------------------------------------------------------------------

    def test_what_can_never_fit_says_why(self, bench: Bench) -> None:
        fits = bench.backend.fits
        assert fits(Resources(cpus=SLOTS, gpus=len(GPUS))) == ""
        assert str(SLOTS + 1) in fits(Resources(cpus=SLOTS + 1))
        assert str(len(GPUS) + 1) in fits(Resources(gpus=len(GPUS) + 1))

    def test_slots_are_held_until_the_end_and_across_reopening(self, bench: Bench, reopen: Reopen) -> None:
        one, all_of_them = Resources(cpus=1), Resources(cpus=SLOTS)
        assert bench.backend.free(all_of_them)
        step = bench.step("while [ ! -e go ]; do sleep 0.01; done", resources=all_of_them)
        native_id = bench.submit(step)
        assert not bench.backend.free(one)
        wait_until(
            lambda: bench.backend.poll([native_id])[native_id].state is JobState.RUNNING, what="the start"
        )
        later = reopen()
        assert later.find(bench.key(step)) == native_id
        assert not later.free(one)
        (bench.folder / "go").touch()
        for backend in (bench.backend, later):
            settle(backend, [native_id])
            assert backend.free(all_of_them)

    def test_an_ended_job_that_is_found_holds_nothing(self, bench: Bench, reopen: Reopen) -> None:
        step = bench.step(resources=Resources(cpus=SLOTS))
        bench.run(step)
        later = reopen()
        later.find(bench.key(step))
        assert later.free(Resources(cpus=SLOTS))

    def test_no_gpu_is_given_out_twice(self, bench: Bench, reopen: Reopen) -> None:
        script = "echo $CUDA_VISIBLE_DEVICES; while [ ! -e go ]; do sleep 0.01; done"
        steps = [bench.step(script, resources=Resources(gpus=1)) for _ in range(2)]
        ids = [bench.submit(step) for step in steps]
        bench.submit(steps[0])  # again, before or after it began: nothing changes
        assert not bench.backend.free(Resources(cpus=0, gpus=2))
        later = reopen()
        wait_until(lambda: all(later.find(bench.key(step)) for step in steps), what="both jobs")
        assert not later.free(Resources(cpus=0, gpus=2))
        assert later.free(Resources(cpus=0, gpus=1))
        last = bench.step(script, resources=Resources(gpus=1))
        ids.append(bench.submit(last, backend=later))
        wait_until(lambda: all(map(bench.output, ids)), what="all three")
        assert sorted(bench.output(i).strip() for i in ids) == sorted(GPUS)
        (bench.folder / "go").touch()
        settle(bench.backend, ids)

    def test_a_job_without_gpus_sees_none_and_one_with_several_sees_as_many(self, bench: Bench) -> None:
        none, _ = bench.run(bench.step('echo "[$CUDA_VISIBLE_DEVICES]"'))
        many, _ = bench.run(bench.step('echo "[$CUDA_VISIBLE_DEVICES]"', resources=Resources(gpus=2)))
        assert bench.output(none) == "[]\n"
        given = bench.output(many).strip().strip("[]").split(",")
        assert len(set(given)) == 2
        assert set(given) <= set(GPUS)

    # -- secrets and the record ------------------------------------------------------------------------

    def test_secrets_reach_the_command_and_no_file(self, bench: Bench, settings: BackendSettings) -> None:
        code = f"import os, sys; sys.exit(os.environ[{SECRET_NAME!r}] != sys.argv[1][::-1])"
        step = bench.python(code, SECRET_VALUE[::-1], secrets=(SECRET_NAME,))
        _, report = bench.run(step)
        assert report.state is JobState.SUCCEEDED
        kept = {path: path.read_bytes() for path in settings.jobs_dir.rglob("*") if path.is_file()}
        assert kept
        assert [path for path, data in kept.items() if SECRET_VALUE.encode() in data] == []

    def test_what_the_command_could_see_is_recorded(self, bench: Bench, settings: BackendSettings) -> None:
        bench.run(bench.step(env={"CONTRACT_SETTING": "plain-value-4711"}, secrets=(SECRET_NAME,)))
        kept = b"".join(path.read_bytes() for path in settings.jobs_dir.rglob("*") if path.is_file())
        for word in ("CONTRACT_SETTING", "plain-value-4711", SECRET_NAME):
            assert word.encode() in kept

    # -- explain ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("line", "cause", "retry"),
        [
            ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out_of_memory", False),
            ("ModuleNotFoundError: No module named 'xformers'", "missing_module", False),
            ("OSError: [Errno 28] No space left on device", "no_disk", False),
            ("requests.exceptions.ConnectionError: Connection refused", "network", True),
        ],
    )  # fmt: skip
    def test_a_failure_is_explained_by_its_telling_line(
        self, bench: Bench, line: str, cause: str, *, retry: bool
    ) -> None:
        script = f"echo starting; echo {shlex.quote(line)} >&2; echo cleaning up >&2; exit 1"
        native_id, report = bench.run(bench.step(script))
        analysis = bench.backend.explain(native_id, report)
        assert (analysis.cause, analysis.retry) == (cause, retry)
        assert analysis.lines == (line,)

    def test_a_plain_failure_shows_its_last_lines(self, bench: Bench) -> None:
        native_id, report = bench.run(bench.step("echo first; echo second; exit 3"))
        analysis = bench.backend.explain(native_id, report)
        assert (analysis.cause, analysis.lines) == ("exit", ("first", "second"))

    def test_a_success_needs_no_explanation(self, bench: Bench) -> None:
        native_id, report = bench.run(bench.step("echo out of memory"))
        assert bench.backend.explain(native_id, report).cause == "none"
