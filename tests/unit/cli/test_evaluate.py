"""`modelyard evaluate` from the command line."""

from __future__ import annotations

import json

import pytest

from modelyard.testing.openai_server import fake_server


@pytest.fixture
def server(tmp_path):
    with fake_server(tmp_path / "log.jsonl") as running:
        yield running


@pytest.fixture
def files(tmp_path, server):
    """yard.yaml and sums.jsonl; the extra entries go into the pool."""

    def write(*entries):
        pool = [{"name": "adder", "endpoint": server.endpoint, "price": {"request_usd": 0.001}}, *entries]
        (tmp_path / "yard.yaml").write_text(json.dumps({"name": "small", "pool": pool}))
        rows = [
            {"id": f"q{i}", "prompt": f"{i} + 1", "answers": [str(i + 1)], "scorer": "numeric"}
            for i in range(20)
        ]
        (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ("evaluate", "yard.yaml", "--set", "sums.jsonl")

    return write


def test_a_table_for_people_and_json_for_machines(call, files, tmp_path):
    asked = files()
    dry = call(*asked, "--dry-run")
    assert (
        "20 questions, 0 answered before, 20 to ask" in dry.output and not (tmp_path / ".modelyard").exists()
    )
    first = call(*asked)
    assert first.exit_code == 0, first.exception
    assert ["adder", "1.000", "20", "0", "0.02"] in [line.split() for line in first.output.splitlines()]
    again = json.loads(call(*asked, "--json").stdout)
    assert again["whole"] and again["models"][0]["stored"] == 20
    assert json.loads(call(*asked, "--dry-run", "--json").output)["models"][0]["stored"] == 20
    fitted = call("router", "fit", "--results", again["output"], "--clusters", "1", "--embedder", "hashing")
    assert fitted.exit_code == 0, fitted.exception


def test_status_3_where_a_model_was_left_out_and_1_where_all_were(call, files):
    asked = files({"name": "lost", "endpoint": "http://127.0.0.1:9/v1", "retries": 0})
    some = call(*asked)
    assert some.exit_code == 3 and "lost" in some.output and "left out" in some.output
    assert call(*asked, "--model", "lost").exit_code == 1


def test_the_parts_of_a_command_line(call, files, server):
    asked = files()
    limited = call(*asked, "--limit", "5", "--parallel", "1", "--samples", "2", "--json")
    assert json.loads(limited.stdout)["models"][0]["questions"] == 10
    sharded = call(*asked, "--shards", "2", "--json", "--output", "here")
    assert sharded.exit_code == 0, sharded.exception
    assert json.loads(sharded.stdout)["models"][0]["stored"] == 20
    assert call(*asked, "--fresh", "--limit", "5").exit_code == 0
    assert len(server.requests()) == 10 + 15 + 5


def test_a_yard_without_a_pool_is_refused(call, files, small_yard):
    files()
    small_yard()
    refused = call("evaluate", "yard.yaml", "--set", "sums.jsonl")
    assert "pool: names no model" in str(refused.exception)


def test_a_yard_may_declare_both_pools(call, small_yard):
    small_yard(pool=[{"name": "echo", "engine": "command", "run": "cat"}])
    planned = call("plan", "yard.yaml")
    assert planned.exit_code == 0, planned.exception
