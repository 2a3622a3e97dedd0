"""Slurm's words: the table of states, the rows, and what two witnesses say together."""

from __future__ import annotations

import re

import pytest

from modelyard.jobs.backends.slurm_states import (
    MEANINGS,
    Meaning,
    Row,
    is_clear,
    joined,
    rows_for,
    rows_of_accounting,
    rows_of_queue,
    sentence,
    state_said,
    unrecorded,
)
from modelyard.jobs.job import JobState, Report

EXITED = Report(state=JobState.FAILED, exit_code=3, reason="exit", detail="exit status 3")
DONE = Report(state=JobState.SUCCEEDED, exit_code=0, reason="exit")
TERMED = Report(state=JobState.FAILED, exit_code=-15, reason="signal", detail="ended by signal 15")
KILLED = Report(state=JobState.FAILED, exit_code=-9, reason="signal", detail="ended by signal 9")
CRASHED = Report(state=JobState.FAILED, exit_code=-11, reason="signal", detail="ended by signal 11")
STOPPED = Report(state=JobState.CANCELLED, exit_code=0, reason="cancelled", detail="stopped on request")

ENDED = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-26T14:00:00"
FAILED, CANCELLED, LOST = JobState.FAILED, JobState.CANCELLED, JobState.LOST


@pytest.mark.parametrize(
    ("state", "live"),
    [("PENDING", True), ("REQUEUED", True), ("COMPLETING", True), ("RUNNING", True), ("SUSPENDED", True),
     ("OF_A_LATER_SLURM", True), ("COMPLETED", False), ("FAILED", False), ("CANCELLED", False),
     ("TIMEOUT", False), ("NODE_FAIL", False), ("PREEMPTED", False), ("OUT_OF_MEMORY", False)],
)  # fmt: skip
def test_a_state_goes_on_or_has_ended(state, live):
    assert Row(job_id="1", name="a", state=state).live is live


def test_rows_of_the_queue():
    rows = rows_of_queue("12|RUNNING|n1|None|train-a\n13_2|PENDING||Resources|array|of|bars\n")
    assert [(r.job_id, r.state, r.nodes, r.reason, r.name, r.index) for r in rows] == [
        ("12", "RUNNING", "n1", "None", "train-a", None),
        ("13_2", "PENDING", "", "Resources", "array|of|bars", 2),
    ]
    assert rows_of_queue("") == []
    assert rows_of_queue("14")[0].live  # a torn line says nothing that ends a job


def test_rows_of_accounting():
    answer = "12|CANCELLED by 0|n[1-2]|train-a\n13_2|OUT_OF_ME+|None assigned|array\n14|COMPLETED|n1|x\n"
    assert [(r.job_id, r.state, r.nodes) for r in rows_of_accounting(answer)] == [
        ("12", "CANCELLED", "n[1-2]"),
        ("13_2", "OUT_OF_ME", ""),
        ("14", "COMPLETED", "n1"),
    ]


def test_a_job_is_known_by_its_name_for_numbers_come_again():
    answer = (
        "5|FAILED|n1|None|other\n5_0|RUNNING|n1|None|array\n5_1|PENDING||None|array\n6|RUNNING|n1|None|own\n"
    )
    rows = rows_of_queue(answer)
    assert [r.job_id for r in rows_for(rows, "array", 1)] == ["5_1"]
    assert [r.job_id for r in rows_for(rows, "own", None)] == ["6"]
    assert rows_for(rows, "array", None) == []


@pytest.mark.parametrize(
    ("line", "state"),
    [
        (f"{ENDED} DUE TO TIME LIMIT ***", "TIMEOUT"),
        (f"{ENDED} DUE TO PREEMPTION ***", "PREEMPTED"),
        (f"{ENDED} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***", "NODE_FAIL"),
        (f"{ENDED} ***", "CANCELLED"),
        (f"{ENDED} DUE TO A REASON OF A LATER SLURM ***", ""),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.batch.", "OUT_OF_MEMORY"),
        ("bash: warning: setlocale", ""),
    ],
)  # fmt: skip
def test_a_step_daemon_says_why_it_ended_a_job(line, state):
    assert state_said(["before", line]) == state
    assert state_said([]) == ""


@pytest.mark.parametrize(
    ("report", "clear"), [(EXITED, True), (CRASHED, True), (TERMED, False), (KILLED, False), (STOPPED, False)]
)
def test_an_end_that_may_have_come_from_outside_needs_slurm_s_word(report, clear):
    assert is_clear(report) is clear


@pytest.mark.parametrize(
    ("report", "state", "asked", "wanted"),
    [
        (STOPPED, "TIMEOUT", False, (FAILED, "timeout")),
        (TERMED, "TIMEOUT", False, (FAILED, "timeout")),
        (TERMED, "PREEMPTED", False, (LOST, "lost")),
        (STOPPED, "NODE_FAIL", False, (LOST, "lost")),
        (STOPPED, "CANCELLED", False, (CANCELLED, "cancelled")),
        (TERMED, "CANCELLED", False, (CANCELLED, "cancelled")),
        (KILLED, "OUT_OF_MEMORY", False, (FAILED, "signal")),
        (DONE, "OUT_OF_MEMORY", False, (JobState.SUCCEEDED, "exit")),
        (DONE, "TIMEOUT", False, (FAILED, "timeout")),
        (DONE, "PREEMPTED", False, (LOST, "lost")),
        (KILLED, "COMPLETED", False, (FAILED, "signal")),
        (KILLED, "", False, (FAILED, "signal")),
        # Stopped, nobody of ours asked, and Slurm has forgotten it: as when the scheduler lost its state.
        (STOPPED, "", False, (LOST, "lost")),
        (STOPPED, "CANCELLED", True, (CANCELLED, "cancelled")),
        (KILLED, "", True, (CANCELLED, "cancelled")),
        (STOPPED, "TIMEOUT", True, (CANCELLED, "cancelled")),
    ],
)
def test_the_wrapper_says_how_and_slurm_says_who(report, state, asked, wanted):
    told = joined(report, state, asked=asked)
    assert (told.state, told.reason) == wanted
    assert told.exit_code == report.exit_code
    assert told.detail or told == DONE


@pytest.mark.parametrize(
    ("state", "claimed", "wanted"),
    [
        ("TIMEOUT", True, (FAILED, "timeout")),
        ("DEADLINE", False, (FAILED, "timeout")),
        ("OUT_OF_MEMORY", True, (FAILED, "signal")),
        ("CANCELLED", False, (CANCELLED, "cancelled")),
        ("NODE_FAIL", True, (LOST, "lost")),
        ("BOOT_FAIL", False, (LOST, "lost")),
        ("PREEMPTED", True, (LOST, "lost")),
        ("FAILED", True, (LOST, "lost")),
        ("FAILED", False, (FAILED, "start")),
        ("COMPLETED", True, (LOST, "lost")),
        ("COMPLETED", False, (LOST, "lost")),
        ("", True, (LOST, "lost")),
        ("", False, (LOST, "lost")),
    ],
)
def test_without_a_record_slurm_s_state_decides(state, claimed, wanted):
    row = Row(job_id="1", name="a", state=state, nodes="n1")
    told = unrecorded(row, asked=False, claimed=claimed, said="python3: not found")
    assert (told.state, told.reason) == wanted
    assert unrecorded(row, asked=True, claimed=claimed, said="").state is CANCELLED
    if wanted == (FAILED, "start"):
        assert "python3: not found" in told.detail


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_job_that_its_node_could_not_start_is_not_to_blame(state):
    """A slurmd that cannot launch a job that may not be requeued cancels it as root."""
    row = Row(job_id="1", name="a", state=state, nodes="n1")
    told = unrecorded(row, asked=False, claimed=False, said="")
    assert (told.state, told.detail) == (LOST, "could not be started on n1")
    waited = Row(job_id="1", name="a", state="CANCELLED")
    assert unrecorded(waited, asked=False, claimed=False, said="").state is CANCELLED


def test_every_final_state_has_a_sentence():
    for state, meaning in MEANINGS.items():
        if meaning not in (Meaning.WAITS, Meaning.RUNS):
            assert re.fullmatch(r"[a-z][a-zA-Z' ]+ \([A-Z_]+\)", sentence(state))
