"""`modelyard onboard`, by asking and by answers that there are."""

from __future__ import annotations

import json

import pytest

from modelyard.testing.openai_server import fake_server


@pytest.fixture
def server(tmp_path):
    with fake_server(tmp_path / "log.jsonl", "--api-key", "right") as running:
        yield running


@pytest.fixture
def sums(tmp_path):
    path = tmp_path / "sums.jsonl"
    rows = [
        {"id": f"q{i}", "prompt": f"What is {i} + {i}?", "answers": [str(2 * i)], "scorer": "numeric"}
        for i in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def router(call, sums, tmp_path):
    """A router that knows a parrot and a mute."""
    pool = [
        {"name": "parrot", "engine": "command", "run": "cat", "price": {"request_usd": 0.001}},
        {"name": "mute", "engine": "command", "run": "true", "price": {"request_usd": 0.0}},
    ]
    (tmp_path / "yard.yaml").write_text(json.dumps({"name": "y", "pool": pool}))
    evaluated = call("evaluate", "yard.yaml", "--set", sums, "--output", "results", "--limit", 20)
    assert evaluated.exit_code == 0, evaluated.exception
    fitted = call("router", "fit", "--results", "results", "--clusters", 1, "--embedder", "hashing")
    assert fitted.exit_code == 0, fitted.exception
    return tmp_path / "router"


def test_a_server_is_asked_and_joins(call, router, sums, server, monkeypatch):
    monkeypatch.setenv("ADDER_KEY", "right")
    joined = call(
        "onboard", "newcomer", "--endpoint", server.endpoint, "--model", "adder", "--api-key", "ADDER_KEY",
        "--set", sums, "--validation", 30, "--usd-per-million", 1000, 2000, "--json",
    )  # fmt: skip
    assert joined.exit_code == 0, joined.exception
    record = json.loads(joined.stdout)
    assert record["answers"] == 30 and record["models"] == ["mute", "newcomer", "parrot"]
    assert len(server.requests()) == 30
    decision = json.loads(call("route", "What is 3 + 3?", "--json").output)
    assert decision["chosen"] == "newcomer" and decision["cost_usd"] > 0.001


def test_a_model_of_a_pool_is_asked(call, router, sums, tmp_path):
    (tmp_path / "double.py").write_text("import re; print(2 * int(re.search(r'\\d+', input())[0]))")
    pool = [{"name": "d", "engine": "command", "run": "python3 double.py", "price": {"request_usd": 0.01}}]
    (tmp_path / "new.yaml").write_text(json.dumps({"name": "n", "pool": pool}))
    joined = call("onboard", "d", "--pool", "new.yaml", "--set", sums, "--validation", 10)
    assert joined.exit_code == 0, joined.exception
    assert joined.output == "router: d from 10 answers; now d, mute, parrot\n"


def test_a_checkpoint_is_asked(call, router, sums, tiny_checkpoint):
    joined = call(
        "onboard", "tiny", "--checkpoint", tiny_checkpoint, "--set", sums, "--validation", 2,
        "--usd-per-request", 0.0001,
    )  # fmt: skip
    assert joined.exit_code == 0, joined.exception


def test_what_is_missing_is_named(call, router, sums, server):
    assert "give one of --results" in call("onboard", "x").output
    assert "--set names the questions" in call("onboard", "x", "--endpoint", server.endpoint).output
    refused = call(
        "onboard", "x", "--endpoint", server.endpoint, "--model", "adder", "--set", sums, "--validation", 5
    )
    assert "answers 401" in str(refused.exception)


def test_a_model_without_a_price_does_not_join(call, router, sums, tmp_path):
    (tmp_path / "new.yaml").write_text(
        json.dumps({"name": "n", "pool": [{"name": "d", "engine": "command", "run": "cat"}]})
    )
    refused = call("onboard", "d", "--pool", "new.yaml", "--set", sums, "--validation", 5)
    assert "unknown is not free" in str(refused.exception)
    assert "d" not in json.loads(call("router", "show", router, "--json").output)["models"]
