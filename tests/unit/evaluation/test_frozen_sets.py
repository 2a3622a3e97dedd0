"""Frozen sets: their digest, their splits, and that every opening is on record."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import DocumentError
from modelyard.evaluation.frozen_sets import Opening, looks, open_split, read_frozen


@pytest.fixture
def write(tmp_path):
    def one(*rows):
        path = tmp_path / "set.jsonl"
        path.write_text("".join(json.dumps({"prompt": "?", "answers": ["x"], **row}) + "\n" for row in rows))
        return path

    return one


def opening(split, run="r1"):
    return Opening(split=split, purpose="test", models=("m",), run=run)


def test_a_split_is_opened_on_record(write, yard):
    frozen = read_frozen(write({"id": "a"}, {"id": "b", "split": "report"}, {"id": "c"}))
    assert frozen.sizes == {"fit": 2, "certify": 0, "report": 1}
    assert looks(yard.journal, frozen.digest) == {"fit": 0, "certify": 0, "report": 0}
    assert [each.id for each in open_split(frozen, yard.journal, opening("report"))] == ["b"]
    (entry,) = yard.journal.read()
    assert (entry.kind, entry.data["split"], entry.data["set_digest"], entry.data["examples"]) == (
        "set.opened", "report", frozen.digest, 1,
    )  # fmt: skip


def test_looks_count_evaluations_not_resumptions(write, yard):
    frozen = read_frozen(write({"id": "a"}, {"id": "b", "split": "report"}))
    for split, run in (("fit", "r1"), ("fit", "r1"), ("fit", "r2"), ("report", "r1")):
        open_split(frozen, yard.journal, opening(split, run))
    assert looks(yard.journal, frozen.digest) == {"fit": 2, "certify": 0, "report": 1}
    assert looks(yard.journal, "sha256:other")["fit"] == 0


def test_a_split_without_examples_cannot_be_opened(write, yard):
    frozen = read_frozen(write({"id": "a"}))
    with pytest.raises(DocumentError, match=r'split = "certify": has no example; choose another one: fit 1'):
        open_split(frozen, yard.journal, opening("certify"))
    assert list(yard.journal.read()) == []


def test_an_example_that_cannot_be_scored_is_refused(write):
    path = write(
        {"id": "a", "scorer": "vibes"},
        {"id": "b", "scorer": "likelihood"},
        {"id": "c", "scorer": "choice", "choices": ["x", "y"], "answers": ["C"]},
        {"id": "d", "scorer": "choice", "choices": ["x", "y"], "answers": ["B"]},
    )
    with pytest.raises(DocumentError) as caught:
        read_frozen(path)
    assert [(fault.key, fault.problem) for fault in caught.value.faults] == [
        ("example a.scorer", "is not installed"),
        ("example b", "has no choices to compare"),
        ("example c", "has the answer 'C', which is no letter of its choices"),
    ]


def test_the_digest_is_of_all_splits_and_of_no_order(write):
    rows = ({"id": "a"}, {"id": "b", "split": "report"})
    first = read_frozen(write(*rows)).digest
    assert read_frozen(write(*reversed(rows))).digest == first
    assert read_frozen(write(rows[0], {"id": "b", "split": "certify"})).digest != first
