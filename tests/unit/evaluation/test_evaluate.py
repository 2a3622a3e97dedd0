"""Evaluations: what is asked, what is counted, what is written, what is not paid for twice."""

from __future__ import annotations

import json
import os

import pyarrow.parquet as pq
import pytest

from modelyard.core.errors import EvaluationError
from modelyard.core.files import read_json
from modelyard.evaluation.answer_store import open_store
from modelyard.evaluation.evaluate import EvaluationOptions, evaluate, planned, prepare
from modelyard.evaluation.interview import Surroundings, store_path
from modelyard.evaluation.pool import read_pool
from modelyard.results.outcomes import load_prompts, load_results
from modelyard.routing.answer_table import read_answer_table
from modelyard.runs.yard import open_yard
from modelyard.testing.openai_server import fake_server


def adder(server, name="adder", **fields):
    return {"name": name, "endpoint": server.endpoint, "model": "adder", **fields}


PRICE = {"prompt_usd_per_million": 1000.0, "completion_usd_per_million": 2000.0}


def test_a_pool_is_evaluated_into_tables_a_router_reads(run, sums, server, tmp_path):
    echo = {"name": "echo", "engine": "command", "run": "cat", "price": {"request_usd": 0.0}}
    path = sums(20)
    evaluated = run(path, adder(server, price=PRICE), echo)
    assert evaluated.whole and [each.mean_score for each in evaluated.models] == [1.0, 1 / 18]
    rows = load_results(tmp_path / "out" / "results.parquet").to_pylist()
    assert len(rows) == 36 and {row["split"] for row in rows} == {"fit"}
    first = rows[0]
    assert (first["model"], first["example_id"], first["group_id"], first["value"]) == (
        "adder",
        "q0",
        "g0",
        1.0,
    )
    assert first["cost_usd"] == pytest.approx((first["prompt_tokens"] + 10) / 1000)
    assert first["latency_s"] > 0 and first["scorer"] == "numeric" and first["error"] is None
    assert {row["set_digest"] for row in rows} == {prepare(path, (), EvaluationOptions()).frozen.digest}
    assert len({row["model_digest"] for row in rows}) == 2
    prompts = load_prompts(tmp_path / "out" / "prompts.parquet").to_pylist()
    assert prompts[3]["text"] == "What is 3 + 5?"
    answers = read_answer_table([tmp_path / "out"]).answers
    assert answers.models == ("adder", "echo") and answers.errors_mn.shape == (2, 18)
    texts = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert texts[0]["text"] == "0 + 5 = 5" and texts[0]["why"] == "5 is within the tolerance"


def test_what_was_answered_is_not_asked_again(run, sums, server):
    path = sums(20)
    first = run(path, adder(server))
    again = run(path, adder(server))
    assert again.digests == first.digests, "the same bytes, latency included"
    assert again.models[0].stored == 18 and len(server.requests()) == 18
    other = run(path, adder(server, name="twin"), output="other")
    assert len(server.requests()) == 36, "another model is asked by its own name in the file"
    assert other.models[0].mean_score == 1.0
    run(path, adder(server), fresh=True)
    assert len(server.requests()) == 54


def test_a_longer_set_asks_only_the_new_questions(run, sums, server):
    run(sums(20), adder(server))
    assert run(sums(40), adder(server), output="longer").models[0].stored == 18
    assert len(server.requests()) == 36


def test_other_options_of_a_model_are_other_answers(run, sums, server):
    path = sums(10)
    run(path, adder(server))
    run(path, adder(server, options={"temperature": 1}), output="warm")
    run(path, adder(server, revision="new"), output="new")
    assert len(server.requests()) == 27


def test_samples_are_answers_of_their_own(run, sums, server, tmp_path):
    run(sums(10), adder(server), samples=3)
    rows = load_results(tmp_path / "out" / "results.parquet").to_pylist()
    assert len(rows) == 27 and {row["sample"] for row in rows} == {0, 1, 2}
    assert len(server.requests()) == 27


def test_no_answer_is_an_error_of_the_model(run, sums, tmp_path):
    with fake_server(tmp_path / "log.jsonl", "--refused", "3") as server:
        evaluated = run(sums(60), adder(server))
    rows = load_results(tmp_path / "out" / "results.parquet").to_pylist()
    lost = [row for row in rows if row["error"]]
    assert len(rows) == 54 and 5 < len(lost) < 40
    assert {row["value"] for row in lost} == {0.0} and lost[0]["output_digest"] is None
    (outcome,) = evaluated.models
    assert evaluated.whole and outcome.unanswered == len(lost)
    assert outcome.mean_score == pytest.approx(1 - len(lost) / 54)


def test_a_model_that_answers_nothing_is_no_bad_model(run, sums, tmp_path):
    """Fewer questions than it takes to lose trust in a model, all refused for good."""
    with fake_server(tmp_path / "log.jsonl", "--refused", "1") as server:
        evaluated = run(sums(3), adder(server))
    assert "it answered none of 3 questions (status 400" in evaluated.models[0].why
    assert not evaluated.whole and not evaluated.digests


@pytest.fixture
def spoilt(tmp_path):
    """Writes forty sums of which every fourth holds a word."""

    def write(word):
        path = tmp_path / "spoilt.jsonl"
        rows = [
            {
                "id": f"q{i}",
                "prompt": f"{i} + 1 {'' if i % 4 else word}",
                "answers": [str(i + 1)],
                "scorer": "numeric",
            }
            for i in range(40)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_what_always_fails_does_not_shut_a_model_out_at_the_second_run(run, spoilt, server):
    entry, path = adder(server, retries=0, parallel=1), spoilt("stuck")
    for _ in range(2):
        evaluated = run(path, entry)
        assert evaluated.whole and evaluated.models[0].unanswered == 10


def test_recorded_answers_go_by_example(run, tmp_path):
    path = tmp_path / "twins.jsonl"
    rows = [{"id": i, "prompt": "What is 1 + 1?", "answers": [a]} for i, a in (("a", "1"), ("b", "2"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [{"model": "old", "example_id": i, "text": a} for i, a in (("a", "1"), ("b", "2"))]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert (
        run(path, {"name": "old", "engine": "replay", "answers": "answers.jsonl"}).models[0].mean_score == 1.0
    )


def test_a_failure_that_may_pass_is_asked_again_by_the_next_run(run, spoilt, server):
    """Every fourth question fails the first time, and nothing is retried: the next run asks just those."""
    entry, path = adder(server, retries=0, parallel=1), spoilt("later")
    first = run(path, entry)
    assert (first.models[0].unanswered, first.models[0].mean_score) == (10, 0.75)
    second = run(path, entry)
    assert (second.models[0].unanswered, second.models[0].mean_score) == (0, 1.0)
    assert second.models[0].stored == 30 and len(server.requests()) == 50


def test_an_unreachable_model_is_left_out_and_named(run, sums, server, tmp_path):
    lost = {"name": "lost", "endpoint": "http://127.0.0.1:9/v1", "retries": 0}
    evaluated = run(sums(20), lost, adder(server))
    assert not evaluated.whole and "questions in a row have no answer" in evaluated.models[0].why
    assert evaluated.models[1].why == ""
    rows = load_results(tmp_path / "out" / "results.parquet").to_pylist()
    assert {row["model"] for row in rows} == {"adder"}
    nothing = run(sums(20), lost, output="none")
    assert nothing.digests == {} and not (tmp_path / "none").exists()


def test_a_model_that_another_process_asks_is_left_out(run, sums, server, yard, tmp_path):
    entry, path = adder(server), sums(10)
    (model,) = read_pool({"pool": [entry]}, path=tmp_path / "yard.yaml")
    with open_store(store_path(yard, model)):
        evaluated = run(path, entry, adder(server, name="free"))
    assert "another process asks this model now" in evaluated.models[0].why
    assert evaluated.models[1].mean_score == 1.0


def test_equal_questions_are_asked_once_and_both_scored(run, server, tmp_path):
    rows = [
        {"id": i, "prompt": "What is 1 + 1?", "answers": [a], "scorer": "numeric"}
        for i, a in (("a", "2"), ("b", "3"))
    ]
    path = tmp_path / "twins.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(path, adder(server))
    values = {
        row["example_id"]: row["value"]
        for row in load_results(tmp_path / "out" / "results.parquet").to_pylist()
    }
    assert values == {"a": 1.0, "b": 0.0} and len(server.requests()) == 1


def test_a_stop_writes_nothing_and_the_same_call_goes_on(run, sums, server, tmp_path):
    path = sums(200)

    def stop():
        return "SIGTERM" if len(server.requests()) > 20 else ""

    stopped = run(path, adder(server), stop=stop)
    assert stopped.stopped and not (tmp_path / "out").exists()
    assert "questions were not asked" in stopped.models[0].why
    before = len(server.requests())
    assert run(path, adder(server)).models[0].stored == before
    assert len(server.requests()) == 180


def test_an_output_of_something_else_is_left_alone(run, sums, server, tmp_path):
    path = sums(10)
    run(path, adder(server))
    with pytest.raises(EvaluationError, match=r"out: holds sums-fit-.*, not sums-fit-"):
        run(path, adder(server, revision="2"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(EvaluationError, match="mine: holds something else"):
        run(path, adder(server), output="mine")


def test_a_limit_draws_the_same_examples_each_time(run, sums, server, tmp_path):
    path = sums(100)
    run(path, adder(server), limit=10, seed=1)
    rows = pq.read_table(tmp_path / "out" / "results.parquet")["example_id"].to_pylist()
    assert len(rows) == 10 and rows != [f"q{i}" for i in range(10)]
    run(path, adder(server), limit=10, seed=1)
    run(path, adder(server), limit=10, seed=2, output="other")
    assert rows != pq.read_table(tmp_path / "other" / "results.parquet")["example_id"].to_pylist()
    assert len(server.requests()) < 21


def test_looks_at_a_split_are_told(run, sums, server):
    path = sums(20)
    assert run(path, adder(server), split="report").looks == 1
    assert run(path, adder(server), split="report").looks == 1, "the same evaluation, resumed"
    assert run(path, adder(server, revision="2"), split="report", output="b").looks == 2


def test_openings_and_ends_are_in_the_journal(run, sums, server, yard):
    path = sums(20)
    evaluated = run(path, adder(server))
    run(path, adder(server), split="report", output="report")
    entries = [
        (entry.kind, entry.data.get("split"), entry.data.get("outputs")) for entry in yard.journal.read()
    ]
    assert [entry[:2] for entry in entries] == [
        ("set.opened", "fit"), ("evaluation.finished", None), ("set.opened", "report"),
        ("evaluation.finished", None),
    ]  # fmt: skip
    assert entries[1][2] == dict(evaluated.digests)


def test_the_record_is_whole_only_at_the_end(run, sums, server, tmp_path):
    evaluated = run(sums(10), adder(server))
    record = read_json(tmp_path / "out" / "evaluation.json")
    assert record["outputs"] == dict(evaluated.digests) and record["id"] == evaluated.id
    assert record["models"]["adder"]["endpoint"] == server.endpoint


def test_a_plan_tells_what_is_left_and_opens_nothing(run, sums, server, yard, tmp_path):
    path, entry = sums(20), adder(server)
    run(path, entry, limit=5)
    models = read_pool({"pool": [entry]}, path=tmp_path / "yard.yaml")
    entries = len(list(yard.journal.read()))
    shown = planned(yard, prepare(path, models, EvaluationOptions()), {})
    assert (shown["models"][0]["questions"], shown["models"][0]["stored"]) == (18, 5)
    assert shown["models"][0]["first"]["body"]["messages"][0]["content"] == "What is 0 + 5?"
    hidden = planned(None, prepare(path, models, EvaluationOptions(split="report")), {})
    assert "stays closed" in hidden["models"][0]["first"]["body"]["messages"][0]["content"]
    assert len(list(yard.journal.read())) == entries and len(server.requests()) == 5


def test_multiple_choice_by_what_is_said_and_by_likelihood(run, server, tmp_path):
    path = tmp_path / "menu.jsonl"
    row = {"prompt": "Which is 1 + 2?", "choices": ["5", "3"], "answers": ["B"]}
    rows = [{"id": scorer, "scorer": scorer, **row} for scorer in ("choice", "likelihood")]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert run(path, adder(server)).models[0].mean_score == 1.0


def test_what_a_model_says_of_a_secret_is_kept_out_of_every_file(tmp_path):
    """A program that answers sees the environment; its answers are files."""
    rows = [{"id": "q", "prompt": "?", "answers": ["x"], "scorer": "exact"}]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "leaky", "engine": "command", "run": "printenv VENDOR_TOKEN"}
    models = read_pool({"pool": [entry]}, path=tmp_path / "yard.yaml")
    around = Surroundings(environment={**os.environ, "VENDOR_TOKEN": "planted-4c1d"})
    evaluation = prepare(tmp_path / "set.jsonl", models, EvaluationOptions())
    evaluate(open_yard(tmp_path / "yard", create=True), evaluation, tmp_path / "out", around)
    (said,) = [
        json.loads(line)["text"] for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()
    ]
    assert said == "[redacted]"
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"planted-4c1d" in p.read_bytes()]
