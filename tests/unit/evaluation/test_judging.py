"""Judging: both orders, verdicts that are read, verdicts that are kept."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.evaluation.judging import score_of, verdict, verdict_questions
from modelyard.results.engines import Reply
from modelyard.results.examples import Example
from modelyard.results.outcomes import load_results

#: Prefers the answer that holds "42", else what stands first; counts how often it is asked.
JUDGE = """
import re, sys
text = sys.stdin.read()
open("asked", "a").write("x")
first, second = re.search(r"\\[Answer A\\](.*)\\[Answer B\\](.*)Which", text, re.DOTALL).groups()
right = ["42" in each for each in (first, second)]
print("They differ. Verdict:", "tie" if all(right) else "B" if right[1] else "A")
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Verdict: A", "a"),
        ("verdict: **B**", "b"),
        ("Verdict: A\nOn second thought.\nVerdict: tie", "tie"),
        ("I like A", None),
        ("Verdict: Apple", None),
        ("", None),
        (None, None),
    ],
)
def test_a_verdict_is_the_last_that_is_said(text, found):
    assert verdict(text) == found


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ("A", "B", 1.0),
        ("B", "A", 0.0),
        ("A", "A", 0.5),  # the judge likes what stands first
        ("B", "B", 0.5),
        ("A", "tie", 0.5),
        ("tie", "A", 0.5),
        ("tie", "tie", 0.5),
        ("nothing", "B", 0.5),
    ],
)
def test_only_who_wins_in_both_places_wins(first, second, value):
    replies = (Reply(text=f"Verdict: {each}") for each in (first, second))
    assert score_of(*replies).value == value


@given(st.text(max_size=30))
def test_an_answer_stands_once_in_each_place_whatever_it_says(answer):
    example = Example(id="e", prompt="What?", answers=("the reference {first}",))
    one, two = verdict_questions(example, answer + "{second}")
    assert one.prompt.index("the reference {first}") > one.prompt.index("[Answer B]")
    assert two.prompt.index("the reference {first}") < two.prompt.index("[Answer B]")
    assert all(each.prompt.count(answer + "{second}") >= 1 for each in (one, two))


@pytest.fixture
def judged(tmp_path):
    """A set of two questions that need a judge, and the entry of the judge."""
    (tmp_path / "judge.py").write_text(JUDGE)
    rows = [
        {"id": f"q{i}", "prompt": f"What is {i}?", "answers": ["42"], "scorer": "judge"} for i in range(2)
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = f"{sys.executable} judge.py"
    price = {"request_usd": 0.5}
    entry = {"name": "judge", "engine": "command", "run": run, "inputs": ["judge.py"], "price": price}
    return path, entry


def test_answers_are_judged_once_and_verdicts_are_kept(run, judged, tmp_path):
    path, judge = judged
    good = {"name": "good", "engine": "command", "run": "echo 42 it is"}
    bad = {"name": "bad", "engine": "command", "run": "echo 7"}
    mute = {"name": "mute", "engine": "command", "run": "true"}
    evaluated = run(path, good, bad, mute, judge=judge)
    assert {each.model: each.mean_score for each in evaluated.models} == {
        "good": 0.5,
        "bad": 0.0,
        "mute": 0.0,
    }
    assert len((tmp_path / "asked").read_text()) == 8  # two models, two questions, two orders
    assert evaluated.judge_usd == pytest.approx(4.0)
    rows = load_results(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["scorer"] for row in rows} == {"judge"} and {len(row["scorer_version"]) for row in rows} == {
        12
    }
    run(path, good, bad, mute, judge=judge)
    assert len((tmp_path / "asked").read_text()) == 8


def test_another_judge_is_another_evaluation(run, judged):
    path, judge = judged
    good = {"name": "good", "engine": "command", "run": "echo 42"}
    ids = {
        run(path, good, judge=each, output=str(i)).id
        for i, each in enumerate((judge, {**judge, "revision": "2"}))
    }
    assert len(ids) == 2


def test_without_a_judge_nothing_is_asked(run, judged, tmp_path):
    with pytest.raises(DocumentError, match="needs a judge, as 2 examples do; declare one under `judge`"):
        run(judged[0], {"name": "m", "engine": "command", "run": "echo 1"})


def test_a_judge_that_fails_has_not_called_a_tie(run, judged):
    path, judge = judged
    evaluated = run(
        path,
        {"name": "m", "engine": "command", "run": "echo 1"},
        judge={**judge, "run": "false", "retries": 0},
    )
    assert "of its answers were not judged: " in evaluated.models[0].why and not evaluated.digests


def test_a_judge_that_cannot_be_asked_leaves_the_models_out(run, judged, tmp_path):
    path, _ = judged
    lost = {"name": "judge", "endpoint": "http://127.0.0.1:9/v1", "retries": 0, "parallel": 1}
    many = [{"id": f"q{i}", "prompt": str(i), "answers": ["42"], "scorer": "judge"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in many))
    evaluated = run(path, {"name": "m", "engine": "command", "run": "echo 1"}, judge=lost)
    assert (
        "of its answers were not judged: 5 questions in a row" in evaluated.models[0].why
        and not evaluated.digests
    )
