"""Searches of `AutoMLRunner` that ask a model: a real server, real jobs, and a key that stands nowhere."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import TuneError
from modelyard.testing.openai_server import fake_server

KEY = "xyzzy-4711"


def asked(bench, server, **settings):
    own = {"llm_endpoint": server.endpoint, "llm_model": "adder", "num_recommendations": 3, **settings}
    return bench.run(settings=own)


@pytest.mark.parametrize("given", ["settings", "environment"])
def test_the_models_advice_is_tried(bench, tmp_path, given):
    key = {"llm_api_key": KEY} if given == "settings" else {"llm_api_key_env": "OWN_KEY"}
    with fake_server(tmp_path / "log.jsonl", "--weak-advice", "--api-key", KEY) as server:
        bench.environment = {"OWN_KEY": KEY}
        result = asked(bench, server, algorithm="llm", llm_temperature=0.1, llm_max_tokens=99, **key)
        bodies = [each["body"] for each in server.requests()]
    assert [each["status"] for each in result["history"]] == ["success"] * 3
    assert len(bodies) == 2  # the default configuration is tried without asking
    assert all((body["temperature"], body["max_tokens"]) == (0.1, 99) for body in bodies)
    advised = [json.loads(line) for line in (bench.run_dir / "advice.jsonl").read_text().splitlines()]
    assert [each["outcome"] for each in advised] == ["taken"] * 2
    for path in bench.workspace.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_a_cap_of_the_cost_holds_and_can_be_raised(bench, tmp_path):
    prices = {"llm_price_in": 1000, "llm_price_out": 1000}
    with fake_server(tmp_path / "log.jsonl", "--weak-advice") as server:
        with pytest.raises(TuneError, match=r"max_cost_usd is 0\.001"):
            asked(bench, server, algorithm="llm", llm_max_cost_usd=0.001, **prices)
        assert server.requests() == []
        own = {"llm_endpoint": server.endpoint, "llm_model": "adder", "num_recommendations": 2}
        settings = {"algorithm": "llm", **own, **prices, "llm_max_cost_usd": 100}
        result = bench.run(settings=settings, resume=True)
    assert [each["status"] for each in result["history"]] == ["success"] * 2


def test_an_endpoint_that_is_dead_is_told_and_nothing_is_tried_at_random(bench):
    settings = {"algorithm": "hybrid", "llm_endpoint": "http://127.0.0.1:9/v1", "llm_model": "m"}
    with pytest.raises(TuneError, match="gave no advice"):
        bench.run(settings={**settings, "num_recommendations": 30, "session_id": "a"})
