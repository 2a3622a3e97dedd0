"""Jobs: keys that any scheduler takes, and reports that come back from JSON."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.jobs.job import Job, JobState, Report, job_key, report_from, report_record

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
identities = st.fixed_dictionaries(
    {"yard": texts, "run": texts, "step": texts, "step_digest": texts, "attempt": st.integers(1, 9999)}
)
reports = st.builds(
    Report,
    state=st.sampled_from(JobState),
    exit_code=st.none() | st.integers(-64, 255),
    reason=texts,
    detail=texts,
    started_at=st.none() | texts,
    finished_at=st.none() | texts,
    cpu_s=st.none() | st.floats(0, 1e9),
    max_rss_bytes=st.none() | st.integers(0, 2**50),
)


@given(identities)
def test_a_key_is_a_name_that_any_scheduler_takes(identity):
    key = job_key(**identity)
    assert re.fullmatch(r"[a-z0-9-]+", key)
    assert len(key) <= 63
    assert job_key(**identity) == key


@given(identities, identities)
def test_different_attempts_have_different_keys(one, other):
    assert (job_key(**one) == job_key(**other)) == (one == other)


def test_a_key_can_be_read():
    key = job_key(yard="y", run="r", step="train/Patch_TST", step_digest="d", attempt=2)
    assert re.fullmatch(r"train-patch-tst-2-[0-9a-f]{16}", key)


@given(reports)
def test_a_report_comes_back_from_json(report):
    assert report_from(json.loads(json.dumps(report_record(report)))) == report


def test_a_report_reads_what_else_stands_beside_it():
    record = {**report_record(Report(state=JobState.LOST)), "key": "k", "step": "s"}
    assert report_from(record) == Report(state=JobState.LOST)


@pytest.mark.parametrize("state", JobState)
def test_only_pending_and_running_are_not_final(state):
    assert state.final == (state not in (JobState.PENDING, JobState.RUNNING))


def test_a_new_job_is_pending():
    job = Job(key="k", step="s", step_digest="d", attempt=1, backend="local")
    assert job.state is JobState.PENDING
