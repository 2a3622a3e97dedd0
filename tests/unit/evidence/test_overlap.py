"""Overlap: what is found exactly, what by words in a row, what is not, and in which files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.digests import digest_path
from modelyard.core.errors import EvidenceError
from modelyard.evidence.overlap import data_files, find_overlap, words_of
from modelyard.results.examples import Example

LONG = "A farmer has seventeen sheep and all but nine of them run away through a hole in the old fence there"


def item(name, prompt="", *messages):
    return Example(id=name, prompt=prompt, messages=messages)


@pytest.fixture
def found(tmp_path):
    """What of items is found in a file of that name and text: the ids found exactly, and by words."""

    def find(items, text, name="data.jsonl"):
        path = tmp_path / name
        path.write_text(text if isinstance(text, str) else "".join(json.dumps(each) + "\n" for each in text))
        overlap = find_overlap(items, [path])
        return overlap.exact, overlap.ngram

    return find


@pytest.mark.parametrize(
    ("said", "exact", "ngram"),
    [
        (LONG, ("i",), ()),
        (LONG.upper().replace(" ", ",  "), ("i",), ()),
        (f"Question: {LONG} How many are left?", (), ("i",)),
        (" ".join(LONG.split()[3:16]), (), ("i",)),
        (" ".join(LONG.split()[3:15]), (), ()),  # twelve words
        ("A farmer has eighteen sheep and all but nine of them die.", (), ()),
    ],
)
def test_a_long_item_is_found_whole_or_by_thirteen_words(found, said, exact, ngram):
    assert found([item("i", LONG)], [{"text": said}]) == (exact, ngram)


@pytest.mark.parametrize(
    ("said", "exact", "ngram"),
    [
        ("what is 3+5", ("i",), ()),
        ("Q: What is 3 + 5? A: 8", (), ("i",)),
        ("What is 3 - 5?", (), ()),
        ("What is 3 + 6?", (), ()),
    ],
)
def test_a_short_item_is_found_only_by_all_of_its_words(found, said, exact, ngram):
    assert found([item("i", "What is 3 + 5?")], [{"text": said}]) == (exact, ngram)


def test_an_item_of_few_words_is_found_only_as_a_text(found):
    assert found([item("i", "Go on!")], [{"text": "they go on and on"}]) == ((), ())
    assert found([item("i", "Go on!")], [{"deep": [{"er": "go on"}]}]) == (("i",), ())


def test_of_messages_all_that_ask_must_stand_there(found):
    asks = item("i", "", ("system", "Be brief."), ("user", "Name a colour."), ("user", "And why that one?"))
    chat = [
        {"messages": [{"role": "user", "content": text}]} for text in ("name a colour", "And why that one")
    ]
    assert found([asks], chat) == (("i",), ())
    assert found([asks], chat[1:]) == ((), ())
    assert found([asks], [{"text": "Be brief."}]) == ((), ())


def test_what_most_items_say_alike_tells_nothing(found):
    items = [item(f"i{n}", f"{LONG}: variant {n} of the riddle is this one") for n in range(9)]
    assert found(items, [{"text": LONG}]) == ((), ())
    assert found(items[:3], [{"text": LONG}]) == ((), ("i0", "i1", "i2"))


def test_text_files_are_read_across_lines(found):
    words = LONG.split()
    wrapped = "\n".join([" ".join(words[:8]), " ".join(words[8:])])
    assert found([item("i", LONG)], wrapped, "book.txt") == ((), ("i",))
    assert found([item("i", LONG)], f"before\n{LONG}\nafter", "book.txt") == (("i",), ())


def test_json_of_any_shape_and_lines_that_are_none_are_read(found):
    assert found([item("i", LONG)], json.dumps([{"a": {"b": [1, None, LONG]}}]), "all.json") == (("i",), ())
    assert found([item("i", LONG)], f"{LONG}\n{{", "data.jsonl") == (("i",), ())


def test_the_record_counts_items_and_names_files(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps([LONG, "x " + LONG]))
    overlap = find_overlap([item("i", LONG), item("j", "What is 3 + 5?")], [path])
    assert overlap.found and overlap.record() == {
        "exact": 1,
        "ngram": 0,
        "checked": [{"path": str(path), "digest": digest_path(path)}],
    }
    assert not find_overlap([item("j", "What is 3 + 5?")], [path]).found


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(EvidenceError, match=r"weights.bin: training data cannot be read as UTF-8 text"):
        find_overlap([item("i", LONG)], [path])
    with pytest.raises(EvidenceError, match=r"gone.txt: training data cannot be read"):
        find_overlap([item("i", LONG)], [tmp_path / "gone.txt"])


def test_of_a_runs_inputs_those_are_data_that_hold_text(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("train.py", "data/a.jsonl", "data/b.TXT", "data/c.bin", "one.csv"):
        (tmp_path / name).write_text("x")
    inputs = [tmp_path / name for name in ("train.py", "data", "one.csv", "data/a.jsonl", "gone.txt")]
    assert [path.name for path in data_files(inputs)] == ["a.jsonl", "b.TXT", "one.csv"]


@given(st.text(min_size=1), st.text())
def test_an_item_that_is_a_text_of_the_data_is_always_found(tmp_path_factory, text, other):
    path = tmp_path_factory.mktemp("o") / "data.jsonl"
    path.write_text(json.dumps([other, {"text": f" {text.upper()} "}]))
    overlap = find_overlap([item("i", text.upper())], [path])
    assert overlap.exact == (("i",) if words_of(text.upper()) else ())
