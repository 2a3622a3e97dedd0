"""Questions shared out over jobs of a backend."""

from __future__ import annotations

import json
import os

import pytest

from modelyard.core.errors import DocumentError, EngineError, EvaluationError
from modelyard.evaluation.answer_store import open_store
from modelyard.evaluation.evaluate import EvaluationOptions, prepare
from modelyard.evaluation.interview import Surroundings
from modelyard.evaluation.pool import read_pool
from modelyard.evaluation.shards import ask_in_shards, ask_shard
from modelyard.runs.execution import ExecutionOptions, Outcome

HERE = Surroundings(environment={})


@pytest.fixture
def share(tmp_path, yard):
    """Asks entries of a pool in shards."""

    def one(path, *entries, count=3, fresh=False):
        models = read_pool({"pool": list(entries)}, path=tmp_path / "yard.yaml")
        evaluation = prepare(path, models, EvaluationOptions(fresh=fresh))
        options = ExecutionOptions(slots=2, environment=dict(os.environ))
        return ask_in_shards(yard, evaluation, count, options)

    return one


def test_shards_ask_everything_once_and_the_evaluation_nothing(share, run, sums, server):
    entry = {"name": "team/adder", "endpoint": server.endpoint, "model": "adder"}
    path = sums(40)
    assert share(path, entry) is Outcome.SUCCEEDED
    assert len(server.requests()) == 36 == len({each["key"] for each in server.requests()})
    evaluated = run(path, entry)
    assert evaluated.models[0].stored == 36 and evaluated.models[0].mean_score == 1.0
    assert share(path, entry) is Outcome.SUCCEEDED and len(server.requests()) == 36


def test_fresh_shards_pay_once_more_and_not_twice(share, run, sums, server):
    entry, path = {"name": "adder", "endpoint": server.endpoint}, sums(20)
    run(path, entry)
    assert share(path, entry, fresh=True) is Outcome.SUCCEEDED
    assert len(server.requests()) == 36


def test_answers_of_shards_that_nobody_took_over_are_found(share, run, sums, server, yard):
    """As after a kill between the end of the jobs and their take-over: the sign is missing."""
    entry, path = {"name": "adder", "endpoint": server.endpoint}, sums(20)
    share(path, entry, count=2)
    (taken,) = yard.runs_dir.glob("*/taken.json")
    taken.unlink()
    (store,) = (yard.root / "answers").glob("adder-*.sqlite")
    store.unlink()
    assert run(path, entry).models[0].stored == 18 and len(server.requests()) == 18
    assert share(path, entry, count=3) is Outcome.SUCCEEDED and len(server.requests()) == 18
    assert taken.exists()


def test_a_model_that_a_job_asks_now_is_not_asked_here(share, run, sums, server, yard):
    entry, path = {"name": "adder", "endpoint": server.endpoint}, sums(20)
    share(path, entry, count=1)
    (taken,) = yard.runs_dir.glob("*/taken.json")
    taken.unlink()
    (part,) = yard.runs_dir.glob("*/answers/*.sqlite")
    with open_store(part):
        evaluated = run(path, entry)
    assert "a job asks this model now" in evaluated.models[0].why and len(server.requests()) == 18


def test_a_shard_that_fails_loses_only_itself(share, run, sums, server):
    entry = {"name": "adder", "endpoint": server.endpoint, "model": "adder"}
    lost = {"name": "lost", "endpoint": "http://127.0.0.1:9/v1", "retries": 0}
    path = sums(20)
    assert share(path, entry, lost, count=1) is not Outcome.SUCCEEDED
    evaluated = run(path, entry)
    assert evaluated.models[0].stored == 18


def spec(tmp_path, server, **changes):
    path = tmp_path / "spec.json"
    questions = [{"key": f"k{i}", "example_id": f"e{i}", "prompt": f"{i} + 1"} for i in range(5)]
    record = {
        "entry": {"name": "adder", "engine": "openai", "endpoint": server.endpoint, "model": "adder"},
        "folder": str(tmp_path), "questions": questions, "answers": str(tmp_path / "part.sqlite"),
        "record": str(tmp_path / "part.json"), **changes,
    }  # fmt: skip
    path.write_text(json.dumps(record))
    return path


def test_a_shard_goes_on_where_it_was(tmp_path, server):
    path = spec(tmp_path, server)
    assert (ask_shard(path, HERE), ask_shard(path, HERE)) == (5, 0)
    assert json.loads((tmp_path / "part.json").read_text())["questions"] == 5
    assert len(server.requests()) == 5


def test_a_shard_that_is_stopped_keeps_what_it_has_and_leaves_no_record(tmp_path, server):
    path = spec(tmp_path, server)
    with pytest.raises(EvaluationError, match=r"spec\.json: stopped with 5 questions left"):
        ask_shard(path, Surroundings(environment={}, stop=lambda: "SIGTERM"))
    assert not (tmp_path / "part.json").exists() and ask_shard(path, HERE) == 5


def test_a_shard_that_cannot_ask_leaves_no_record(tmp_path, server):
    entry = {"name": "a", "engine": "openai", "endpoint": server.endpoint, "model": "no-such-model"}
    with pytest.raises(EngineError, match="there is no model no-such-model"):
        ask_shard(spec(tmp_path, server, entry=entry), HERE)
    assert not (tmp_path / "part.json").exists()
    with pytest.raises(DocumentError, match=r"spec\.json: endpoint = 5: is not"):
        ask_shard(spec(tmp_path, server, entry={"name": "a", "endpoint": 5}), HERE)
