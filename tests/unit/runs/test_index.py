"""The index: a picture of the journal that can be thrown away at any time."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.journal import Draft, Journal
from modelyard.runs.index import Index


def created(run, at="2024-01-01T00:00:00"):
    data = {"kind": "train", "dir": f"/runs/{run}", "source": "yard.yaml", "created_at": at}
    return Draft(kind="run.created", run=run, data=data)


def intent(run, key):
    data = {"key": key, "step": "a", "attempt": 1, "backend": "local"}
    return Draft(kind="job.intent", run=run, data=data)


def finished(run, key, state):
    data = {
        "key": key, "state": state, "exit_code": 0, "reason": "exit", "started_at": None, "finished_at": None,
        "cpu_s": 0.1,
    }  # fmt: skip
    return Draft(kind="job.finished", run=run, data=data)


def ended(run, outcome):
    return Draft(kind="run.ended", run=run, data={"outcome": outcome})


def stored(run, digest):
    data = {"digest": digest, "kind": "checkpoint", "path": "/x", "step": "a", "parents": []}
    return Draft(kind="artifact.stored", run=run, data=data)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal")


@pytest.fixture
def index(tmp_path, journal):
    return Index(tmp_path / "yard.db", journal)


def test_an_empty_yard_has_no_runs(index):
    assert index.runs() == []
    assert index.job_states("none") == {}


def test_runs_are_listed_the_newest_last_with_how_they_ended(index, journal):
    journal.append([created("b", "2024-01-02"), created("a", "2024-01-03"), created("c", "2024-01-01")])
    journal.append([ended("a", "failed"), ended("a", "succeeded"), intent("a", "k1"), intent("a", "k2")])
    rows = index.runs()
    assert [(r.run, r.outcome, r.jobs) for r in rows] == [("c", "", 0), ("b", "", 0), ("a", "succeeded", 2)]
    assert (rows[0].kind, rows[0].dir, rows[0].source, rows[0].ended_at) == (
        "train", "/runs/c", "yard.yaml", None,
    )  # fmt: skip


def test_it_catches_up_with_what_the_journal_has_gained(index, journal):
    journal.append([created("a"), intent("a", "k1"), intent("a", "k2")])
    assert index.job_states("a") == {"PENDING": 2}
    journal.append([finished("a", "k1", "SUCCEEDED"), stored("a", "sha256:aa")])
    assert index.job_states("a") == {"PENDING": 1, "SUCCEEDED": 1}


drafts = st.lists(
    st.one_of(
        st.builds(created, st.sampled_from("ab")),
        st.builds(intent, st.sampled_from("ab"), st.sampled_from(["k1", "k2", "k3"])),
        st.builds(
            finished,
            st.sampled_from("ab"),
            st.sampled_from(["k1", "k2"]),
            st.sampled_from(["SUCCEEDED", "FAILED"]),
        ),
        st.builds(ended, st.sampled_from("ab"), st.sampled_from(["failed", "succeeded"])),
        st.builds(stored, st.sampled_from("ab"), st.sampled_from(["sha256:a", "sha256:b"])),
    ),
    max_size=4,
)


def picture(index):
    return index.runs(), index.job_states("a"), index.job_states("b")


@settings(max_examples=30)
@given(st.lists(drafts, min_size=1, max_size=4))
def test_kept_up_step_by_step_or_built_anew_it_is_the_same(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("yard")
    journal = Journal(folder / "journal")
    kept = Index(folder / "kept.db", journal)
    for batch in batches:
        journal.append(batch, durable=False)
        kept.runs()
    assert picture(kept) == picture(Index(folder / "anew.db", journal))


def test_a_deleted_index_comes_back(index, journal, tmp_path):
    journal.append([created("a"), intent("a", "k1")])
    before = picture(index)
    (tmp_path / "yard.db").unlink()
    assert picture(index) == before


def test_an_index_of_another_version_is_built_anew(index, journal, tmp_path):
    journal.append([created("a")])
    before = picture(index)
    with sqlite3.connect(tmp_path / "yard.db") as db:
        db.execute("DROP TABLE job")
        db.execute("CREATE TABLE stray (x)")
        db.execute("PRAGMA user_version = 99")
    db.close()
    assert picture(index) == before


def test_another_journal_in_its_place_is_noticed(index, journal, tmp_path):
    """A yard put back from a backup: shorter, or longer with other entries."""
    journal.append([created("long-name-of-a-run"), intent("long-name-of-a-run", "k1")])
    index.runs()
    for name in ("journal.jsonl", "head.json"):
        (tmp_path / "journal" / name).unlink()
    Journal(tmp_path / "journal").append([created("b")])
    assert [r.run for r in index.runs()] == ["b"]
    for name in ("journal.jsonl", "head.json"):
        (tmp_path / "journal" / name).unlink()
    Journal(tmp_path / "journal").append([created(f"c{i}") for i in range(9)])
    assert [r.run for r in index.runs()] == [f"c{i}" for i in range(9)]
