"""Asking two models side by side: the order of calls, what is kept, what counts as no answer."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter

import pytest

from modelyard.core.errors import EngineError, EvaluationError
from modelyard.evaluation.interview import Surroundings
from modelyard.evaluation.pool import read_pool
from modelyard.evidence.answers import (
    BLOCK_ITEMS,
    SIDES,
    Call,
    answer_lines,
    answered,
    blocks_of,
    open_panel,
)
from modelyard.results.engines import Question, Reply
from modelyard.results.examples import Example
from modelyard.testing.openai_server import fake_server


def sums(count, **more):
    return [
        Example(id=f"q{i}", prompt=f"What is {i} + 5?", answers=(str(i + 5),), scorer="numeric", **more)
        for i in range(count)
    ]


def calls(count, **more):
    options = {"comparison": "c", "samples": 1, "seed": 0, **more}
    return [call for block in blocks_of(sums(count), **options) for call in block]


@pytest.fixture
def pair(tmp_path):
    """Reads the entries of a baseline and a candidate."""

    def read(baseline, candidate):
        entries = [{"name": "base", **baseline}, {"name": "cand", **candidate}]
        return dict(zip(SIDES, read_pool({"pool": entries}, path=tmp_path / "yard.yaml"), strict=True))

    return read


@pytest.fixture
def server(tmp_path):
    with fake_server(tmp_path / "log.jsonl") as running:
        yield running


def around(**more):
    return Surroundings(environment=dict(os.environ), **more)


def test_every_call_is_made_once_and_blocks_keep_the_order_of_items():
    blocks = blocks_of(sums(20), comparison="c", samples=3, seed=0)
    flat = [call for block in blocks for call in block]
    assert [call.asked for call in flat] == list(range(1, 121))
    assert len({(call.item.id, call.side, call.sample) for call in flat}) == 120
    assert len({call.key for call in flat}) == 120
    assert [sorted({call.order for call in block}) for block in blocks] == [
        list(range(8)), list(range(8, 16)), list(range(16, 20)),
    ]  # fmt: skip


def test_the_calls_of_a_block_are_mixed_by_the_seed():
    """Either model is first in half of the pairs: with 500 pairs 0.5 +- 0.09 is four standard errors."""
    flat = calls(500)
    first = Counter(dict.fromkeys(SIDES, 0))
    seen = set()
    for call in flat:
        if call.order not in seen:
            first[call.side] += 1
        seen.add(call.order)
    assert 0.41 < first["baseline"] / 500 < 0.59
    ordered = [call.order for call in flat]
    assert ordered != sorted(ordered)
    assert calls(500) == flat and calls(500, seed=1) != flat
    assert not {call.key for call in calls(9)} & {call.key for call in calls(9, comparison="d")}


def test_models_of_one_lane_are_asked_out_of_one_queue(tmp_path, pair, server):
    one = {"endpoint": server.endpoint, "model": "adder", "parallel": 1}
    models = pair(one, {**one, "revision": "2"})
    asked = calls(20)
    with open_panel(tmp_path / "c", models, around()) as panel:
        panel.load(asked)
        panel.ask(asked, of_all=20)
    assert [each["key"] for each in server.requests()] == [call.key for call in asked]


def test_models_of_two_lanes_are_asked_at_the_same_time_each_in_order(tmp_path, pair):
    slow = ("--delay-s", "0.06")
    with fake_server(tmp_path / "a.jsonl", *slow) as a, fake_server(tmp_path / "b.jsonl", *slow) as b:
        entries = [{"endpoint": each.endpoint, "model": "adder", "parallel": 1} for each in (a, b)]
        asked = calls(BLOCK_ITEMS)
        with open_panel(tmp_path / "c", pair(*entries), around()) as panel:
            panel.load(asked)
            panel.ask(asked, of_all=BLOCK_ITEMS)
        logs = dict(zip(SIDES, (a.requests(), b.requests()), strict=True))
    for side, log in logs.items():
        assert [each["key"] for each in log] == [call.key for call in asked if call.side == side]
    times = {side: [each["time"] for each in log] for side, log in logs.items()}
    assert times["baseline"][0] < times["candidate"][-1] and times["candidate"][0] < times["baseline"][-1]


def test_what_was_answered_is_not_asked_again_not_even_a_failure(tmp_path, pair, server):
    entry = {"endpoint": server.endpoint, "model": "adder", "parallel": 1, "retries": 0}
    models = pair(entry, {**entry, "revision": "2"})
    items = [*sums(4), Example(id="stuck", prompt="stuck", answers=("x",))]
    asked = [call for block in blocks_of(items, comparison="c", samples=1, seed=0) for call in block]
    for _ in range(2):
        with open_panel(tmp_path / "c", models, around()) as panel:
            panel.load(asked)
            panel.ask(asked, of_all=5)
            assert panel.known(asked[0]) is not None
            failed = [call.item.id for call in asked if panel.known(call).text is None]
    assert failed == ["stuck", "stuck"] and len(server.requests()) == 10


def test_a_model_that_stops_answering_ends_it_and_what_it_did_not_say_is_forgotten(tmp_path, pair, server):
    good = {"endpoint": server.endpoint, "model": "adder"}
    models = pair(good, {"endpoint": "http://127.0.0.1:9/v1", "retries": 0, "parallel": 1})
    asked = calls(8)
    for _ in range(2):
        with open_panel(tmp_path / "c", models, around()) as panel:
            panel.load(asked)
            with pytest.raises(EngineError, match="5 questions in a row have no answer"):
                panel.ask(asked, of_all=8)
        with open_panel(tmp_path / "c", models, around()) as panel:
            panel.load(asked)
            assert all(panel.known(call) is None for call in asked if call.side == "candidate")


def test_a_stop_leaves_the_rest_for_the_next_time(tmp_path, pair, server):
    entry = {"endpoint": server.endpoint, "model": "adder", "parallel": 1}
    models = pair(entry, {**entry, "revision": "2"})
    heard, asked, stopped = [], calls(8), threading.Event()

    def stop():
        if len(heard) < 3:
            return ""
        stopped.set()
        return "enough"

    def told(*each):
        heard.append(each)
        if len(heard) >= 3:
            stopped.wait(10)  # no answer more before somebody looked

    with open_panel(tmp_path / "c", models, around(stop=stop, told=told)) as panel:
        panel.load(asked)
        panel.ask(asked, of_all=8)
        assert 3 <= sum(panel.known(call) is not None for call in asked) < 16
    with open_panel(tmp_path / "c", models, around()) as panel:
        panel.load(asked)
        panel.ask(asked, of_all=8)
        assert all(panel.known(call) is not None for call in asked)
    assert len(server.requests()) == 16


def test_two_processes_cannot_ask_for_one_comparison(tmp_path, pair):
    models = pair({"engine": "command", "run": "cat"}, {"engine": "command", "run": "cat -"})
    with (
        open_panel(tmp_path / "c", models, around()),
        pytest.raises(EvaluationError, match="another process"),
        open_panel(tmp_path / "c", models, around()),
    ):
        pass


@pytest.mark.parametrize(
    ("reply", "options", "score", "error"),
    [
        (Reply(text="5", completion_tokens=3), {"max_tokens": 4}, 1.0, ""),
        (Reply(text="6", completion_tokens=3), {"max_tokens": 4}, 0.0, ""),
        (Reply(text="", completion_tokens=3), {"max_tokens": 4}, 0.0, ""),
        (Reply(error="no"), {}, 0.0, "no"),
        (Reply(), {}, 0.0, "no answer"),
        (Reply(text="5", completion_tokens=4), {"max_tokens": 4}, 0.0, "truncated: it has all 4 tokens"),
        (Reply(text="5", completion_tokens=4), {"max_completion_tokens": 4}, 0.0, "truncated"),
        (Reply(text="5", completion_tokens=4), {}, 1.0, ""),
        (Reply(text="5"), {"max_tokens": 4}, 1.0, ""),
    ],
)
def test_an_answer_is_scored_and_one_that_is_not_whole_is_a_failure(pair, reply, options, score, error):
    entry = {"endpoint": "http://127.0.0.1:9/v1", "options": options}
    model = pair(entry, entry)["candidate"]
    call = next(call for call in calls(1) if call.side == "candidate")
    answer = answered(call, reply, model, whole=True)
    assert answer.score == score and answer.error.startswith(error) and answer.missing == bool(error)
    if reply.text == "5":
        assert answered(call, reply, model, whole=False).score == 1.0


def test_a_letter_is_not_cut_off(pair):
    entry = {"endpoint": "http://127.0.0.1:9/v1", "options": {"max_tokens": 1}}
    item = Example(id="l", prompt="?", answers=("A",), choices=("x", "y"), scorer="likelihood")
    question = Question(example_id="l", prompt="?", letters=("A", "B"))
    call = Call(asked=1, order=0, item=item, side="candidate", sample=0, key="k", question=question)
    answer = answered(call, Reply(text="A", completion_tokens=1), pair(entry, entry)["candidate"], whole=True)
    assert answer.score == 1.0


def test_the_file_of_answers_has_one_line_a_call_in_their_order(pair):
    price = {"price": {"request_usd": 0.5}}
    models = pair({"engine": "command", "run": "cat"}, {"engine": "command", "run": "cat -", **price})
    asked = calls(2)
    answers = [
        answered(call, Reply(text="5", latency_s=0.1), models[call.side], whole=True) for call in asked
    ]
    lines = answer_lines(list(reversed(answers)), models).decode().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["asked"] for record in records] == [1, 2, 3, 4]
    cand = next(each for each in records if each["side"] == "candidate" and each["item"] == "q0")
    del cand["asked"]
    assert cand == {
        "order": 0, "item": "q0", "side": "candidate", "sample": 0, "text": "5", "error": "", "score": 1.0,
        "scorer": "numeric", "scorer_version": "1", "cluster": "q0", "weight": 1.0, "critical": False,
        "latency_s": 0.1, "prompt_tokens": None, "completion_tokens": None, "cost_usd": 0.5,
    }  # fmt: skip
