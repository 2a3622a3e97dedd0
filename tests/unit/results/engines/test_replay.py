"""Recorded answers as a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.core.errors import EngineError
from modelyard.core.faults import Faults, Section
from modelyard.results.engines import Question
from modelyard.results.engines.replay import ReplaySettings


def recorded(tmp_path, *lines):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    faults = Faults(file="f")
    settings = ReplaySettings.read(
        Section({"name": "new", "model": "old", "answers": "answers.jsonl"}, faults=faults), tmp_path
    )
    assert not faults.found
    return settings


def test_each_question_gets_the_answer_that_was_recorded(tmp_path):
    settings = recorded(
        tmp_path,
        {"model": "old", "example_id": "a", "text": "one", "prompt_tokens": 3, "cost_usd": 0.1},
        {"model": "old", "example_id": "a", "sample": 1, "text": "two"},
        {"model": "other", "example_id": "a", "text": "not this"},
        {"model": "old", "example_id": "b", "text": None, "error": "it failed"},
    )
    engine = settings.open({})
    first = engine.ask(Question(example_id="a"), "k")
    assert (first.text, first.prompt_tokens, first.cost_usd) == ("one", 3, 0.1)
    assert engine.ask(Question(example_id="a", sample=1), "k").text == "two"
    assert engine.ask(Question(example_id="b"), "k").error == "it failed"
    lost = engine.ask(Question(example_id="c"), "k")
    assert lost.text is None and lost.error == "answers.jsonl has no answer to it" and not lost.again


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"text": "x"}',
        '{"example_id": "a", "sample": "x"}',
        '{"example_id": "a", "text": 42}',
        '{"example_id": "a", "prompt_tokens": "5"}',
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path, line):
    settings = recorded(tmp_path, {"example_id": "a", "text": "x"}, line)
    with pytest.raises(EngineError, match=r"answers\.jsonl: line 2: is no answer"):
        settings.open({})


def test_odd_line_ends_within_a_text_are_no_ends(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"example_id": "a", "text": "x\u2028y\u0085z"}, ensure_ascii=False) + "\n")
    faults = Faults(file="f")
    settings = ReplaySettings.read(Section({"name": "m", "answers": path.name}, faults=faults), tmp_path)
    assert settings.open({}).ask(Question(example_id="a"), "k").text == "x\u2028y\u0085z"


def test_a_file_that_is_not_there_is_a_fault():
    faults = Faults(file="f")
    ReplaySettings.read(Section({"name": "m", "answers": "lost.jsonl"}, faults=faults), Path("/nowhere"))
    assert [fault.key for fault in faults.found] == ["answers"]
