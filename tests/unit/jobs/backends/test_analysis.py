"""Failure analysis: the cause and its line, from an exit record and the end of the logs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.jobs.backend import Analysis
from modelyard.jobs.backends.analysis import explain_logs, last_lines
from modelyard.jobs.job import JobState, Report

FAILED = Report(state=JobState.FAILED, exit_code=1, reason="exit", detail="exit status 1")


@pytest.fixture
def explain(tmp_path):
    """Explains a report with what stands in stderr and stdout."""

    def run(stderr="", stdout="", report=FAILED):
        for name, text in (("stderr", stderr), ("stdout", stdout)):
            (tmp_path / name).write_text(text)
        return explain_logs(report, [tmp_path / "stderr", tmp_path / "stdout"])

    return run


@pytest.mark.parametrize(
    ("line", "cause", "retry"),
    [
        ("RuntimeError: CUDA out of memory", "out_of_memory", False),
        ("MemoryError", "out_of_memory", False),
        ("fork: Cannot allocate memory", "out_of_memory", False),
        ("slurmstepd: error: Detected 1 oom-kill event(s)", "out_of_memory", False),
        ("ModuleNotFoundError: No module named 'torch'", "missing_module", False),
        ("ImportError: libcudnn.so.9: cannot open shared object file", "missing_module", False),
        ("sh: 1: torchrun: command not found", "missing_program", False),
        ("OSError: [Errno 28] No space left on device", "no_disk", False),
        ("write: Disk quota exceeded", "no_disk", False),
        ("urllib3: Connection reset by peer", "network", True),
        ("Temporary failure in name resolution", "network", True),
    ],
)
def test_telling_lines(explain, line, cause, retry):
    assert explain(stderr=f"before\n{line}\nafter\n") == Analysis(cause=cause, lines=(line,), retry=retry)
    assert explain(stdout=f"{line}\n").cause == cause


def test_the_first_cause_of_the_list_wins_over_its_consequences(explain):
    text = "Connection reset by peer\nCUDA out of memory\n"
    assert explain(stderr=text) == Analysis(cause="out_of_memory", lines=("CUDA out of memory",))


def test_at_most_three_lines_are_shown_and_they_are_the_last(explain):
    text = "".join(f"MemoryError {i}\n" for i in range(9))
    assert explain(stderr=text).lines == ("MemoryError 6", "MemoryError 7", "MemoryError 8")


@pytest.mark.parametrize(
    ("reason", "retry"), [("timeout", False), ("output", False), ("cancelled", False), ("lost", True)]
)
def test_what_the_record_knows_is_not_guessed_from_logs(explain, reason, retry):
    report = Report(state=JobState.FAILED, reason=reason)
    found = explain(stderr="MemoryError\nlast\n", report=report)
    assert found == Analysis(cause=reason, lines=("MemoryError", "last"), retry=retry)


def test_a_start_that_failed_tells_its_detail(explain):
    report = Report(state=JobState.FAILED, exit_code=127, reason="start", detail="could not start: x")
    assert explain(report=report) == Analysis(cause="missing_program", lines=("could not start: x",))


def test_a_silent_sigkill_may_have_been_the_kernel(explain):
    report = Report(state=JobState.FAILED, exit_code=-9, reason="signal", detail="ended by signal 9")
    found = explain(stdout="epoch 3\n", report=report)
    assert (found.cause, found.retry) == ("signal", True)
    assert "memory" in found.lines[0]


def test_another_signal_and_a_plain_exit_show_the_last_lines(explain):
    segfault = Report(state=JobState.FAILED, exit_code=-11, reason="signal")
    assert explain(stderr="a\nb\n", report=segfault) == Analysis(cause="signal", lines=("a", "b"))
    assert explain(stderr="a\nb\nc\nd\n") == Analysis(cause="exit", lines=("b", "c", "d"))
    assert explain() == Analysis(cause="exit")


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.PENDING, JobState.RUNNING])
def test_what_has_not_failed_has_no_cause(explain, state):
    assert explain(stderr="MemoryError\n", report=Report(state=state, reason="exit")).cause == "none"


def test_a_log_that_is_not_there_has_no_lines(tmp_path):
    assert last_lines(tmp_path / "none") == []
    assert explain_logs(FAILED, [tmp_path / "none"]) == Analysis(cause="exit")


def test_only_the_end_of_a_long_log_is_read(tmp_path):
    log = tmp_path / "log"
    log.write_text("MemoryError\n" + "step\n" * 100_000 + "last\n")
    assert explain_logs(FAILED, [log]).lines == ("step", "step", "last")
    assert last_lines(log, 2) == ["step", "last"]


@given(st.binary(max_size=200))
def test_any_bytes_can_be_a_log(tmp_path_factory, data):
    log = tmp_path_factory.getbasetemp() / "bytes.log"
    log.write_bytes(data)
    assert all(line == line.strip() and line for line in last_lines(log))
    assert explain_logs(FAILED, [log]).cause
