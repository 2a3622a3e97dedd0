"""Scorers: tables of answers, and that no text makes one raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.results.examples import Example
from modelyard.results.scorers import load_scorer, scorer_names
from modelyard.results.scorers.choice import stated_letter
from modelyard.results.scorers.numeric import last_number

NAMES = ["choice", "exact", "normalised", "numeric", "regex"]


def score(name: str, right: str, answer: str | None, **options: str | int | float | bool) -> float:
    return load_scorer(name).score(Example(id="e", answers=(right,), options=options), answer).value


def test_ours_are_found_by_entry_point() -> None:
    assert set(NAMES) <= set(scorer_names())
    assert [load_scorer(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("so 3 and then 4.", 4), ("1,234,567.5", 1234567.5), ("-7", -7), ("−7", -7), ("+7", 7),
        ("6.02e23", 6.02e23), ("3/4", 0.75), ("25%", 0.25), (".5", 0.5), ("$1,200", 1200), ("10 - 5", 5),
        ("-$5", -5), ("1/0", None), ("none", None), ("x2", None), ("9" * 400, None), ("", None),
    ],
)  # fmt: skip
def test_the_last_number(text: str, value: float | None) -> None:
    assert last_number(text) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"), ("B.", "B"), ("Answer: B", "B"), ("the answer is B", "B"), ("**B**", "B"), ("b", "B"),
        ("The answer is (C).", "C"), ("Answer: A. No: the answer is D", "D"), ("B) because", "B"),
        ("**Answer:** C", "C"), ("(A) and (B) are both fine", None), ("I do not know", None), ("", None),
        ("The answer is A or B", None), ("The answer is a dog", None), ("The answer is not B", None),
    ],
)  # fmt: skip
def test_the_stated_letter(text: str, letter: str | None) -> None:
    assert stated_letter(text) == letter


@pytest.mark.parametrize(
    ("name", "right", "answer", "options", "value"),
    [
        ("exact", "Paris", " Paris\n", {}, 1), ("exact", "Paris", "paris", {}, 0),
        ("normalised", "The Nile", "nile.", {}, 1), ("normalised", "Nile", "It is the Nile!", {}, 0),
        ("normalised", "Nile", "It is the Nile!", {"contains": True}, 1),
        ("normalised", "art", "It is a party", {"contains": True}, 0),
        ("regex", "4", "#### 3\n#### 4", {"pattern": r"#### (\d)", "group": 1}, 1),
        ("regex", "4", "4", {"pattern": "("}, 0), ("regex", "4", "4", {}, 0),
        ("numeric", "1000", "1,000", {}, 1), ("numeric", "1000", "1001", {"absolute": 1}, 1),
        ("numeric", "1000", "1001", {"relative": 0.0001}, 0),
        ("numeric", "1000", "1 km", {"units": "km=1000"}, 1),
        ("numeric", "2 km", "2000 m", {"units": "km=1000,m=1"}, 1),
        ("numeric", "5", "Answer: 5 of 9", {"marker": "Answer:"}, 1),
        ("choice", "B", "Answer: B", {}, 1), ("choice", "(B)", "A", {}, 0),
    ],
)  # fmt: skip
def test_scores(name: str, right: str, answer: str, options: dict[str, object], value: float) -> None:
    assert score(name, right, answer, **options) == value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_no_answer_is_wrong(name: str, answer: str | None) -> None:
    assert score(name, "B", answer) == 0


@pytest.mark.parametrize("name", NAMES)
@given(right=st.text(), answer=st.text(), option=st.text())
def test_no_text_makes_a_scorer_raise(name: str, right: str, answer: str, option: str) -> None:
    assert score(name, right, answer, marker=option, units=option, contains=True) in (0, 1)
