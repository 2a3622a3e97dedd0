"""What a yard.yaml says of its gateway, and every fault of it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import DocumentError
from modelyard.gateway.config import Breaking, GatewayConfig, Patience, Preference, read_config

A = {"name": "a", "endpoint": "http://127.0.0.1:1/v1", "model": "m", "api_key": "KEY"}
B = {"name": "b", "endpoint": "https://h/v1/", "model": "n", "price": {"prompt_usd_per_million": 1.0}}


def read(folder: Path, gateway: Any = None, *models: dict[str, Any], router: Path | None = None) -> Any:
    data = {"pool": list(models) or [A, B], "gateway": gateway}
    return read_config(data, path=folder / "yard.yaml", router=router)


def faults(folder: Path, gateway: Any, *models: dict[str, Any]) -> str:
    with pytest.raises(DocumentError) as caught:
        read(folder, gateway, *models)
    return str(caught.value)


def test_a_pool_alone_is_served(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert [(m.name, m.endpoints, m.model, m.api_key) for m in config.models] == [
        ("a", ("http://127.0.0.1:1/v1",), "m", "KEY"), ("b", ("https://h/v1",), "n", None)
    ]  # fmt: skip
    assert (config.router, config.patience, config.breaking) == (None, Patience(), Breaking())
    assert [m.price.known for m in config.models] == [False, True]


def test_all_that_may_be_said_is_read_and_reaches_a_worker(tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    (tmp_path / "router/router.json").touch()
    own = {
        "fallbacks": ["b"],
        "replicas": ["http://h2/v1/"],
        "timeout_s": 3,
        "hedge_after_s": 0.5,
        "parallel": 7,
    }
    patience = {"deadline_s": 9, "connect_s": 1, "silence_s": 2, "attempts": 3, "retry_share": 0}
    config = read(tmp_path, {
        "models": {"a": own}, "router": "router", "route": {"lambda": 0.3},
        "patience": {**patience, "retries_per_s": 0}, "in_flight": 6, "drain_s": 7,
        "breaker": {"failures": 2, "window_s": 3, "open_s": 4, "most_open_s": 5},
    })  # fmt: skip
    first = config.models[0]
    assert first.endpoints == ("http://127.0.0.1:1/v1", "http://h2/v1")
    assert (first.fallbacks, first.timeout_s, first.hedge_after_s, first.parallel) == (("b",), 3.0, 0.5, 7)
    assert config.router == str(tmp_path / "router")
    assert config.preference == Preference(lambda_=0.3)
    assert config.patience == Patience(
        deadline_s=9, connect_s=1, silence_s=2, attempts=3, retry_share=0, retries_per_s=0
    )
    assert config.breaking == Breaking(failures=2, window_s=3, open_s=4, most_open_s=5)
    assert (config.in_flight, config.drain_s) == (6, 7.0)
    assert GatewayConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_router_that_is_given_goes_before_the_yards(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.json").touch()
    assert read(tmp_path, {"router": "one"}, router=tmp_path / "two").router == str(tmp_path / "two")


@pytest.mark.parametrize(
    ("gateway", "told"),
    [
        ([1], "gateway"), ({"modelz": {}}, "modelz"), ({"models": {"c": {}}}, "gateway.models.c"),
        ({"models": {"a": {"fallbacks": ["c"]}}}, "is no other model that is served"),
        ({"models": {"a": {"fallbacks": ["a"]}}}, "is no other model that is served"),
        ({"models": {"a": {"replicas": ["h2"]}}}, "is not a web address"),
        ({"models": {"a": {"replicas": ["http://u:p@h/v1"]}}}, "holds a password"),
        ({"models": {"a": {"timeout_s": 0}}}, "timeout_s"), ({"models": {"a": {"parallel": 0}}}, "parallel"),
        ({"models": {"a": {"hedge_after_s": 0}}}, "hedge_after_s"),
        ({"router": "nowhere"}, "holds no router"), ({"route": {"lambda": -1}}, "lambda"),
        ({"route": {"lambda": 1, "quality": 0.5}}, "more than one thing"),
        ({"route": {"speed": 1}}, "gateway.route.speed"),
        ({"patience": {"deadline_s": 0}}, "deadline_s"), ({"patience": {"attempts": 0}}, "attempts"),
        ({"patience": {"retry_share": -0.1}}, "retry_share"), ({"breaker": {"failures": 0}}, "failures"),
        ({"breaker": {"open_s": "long"}}, "open_s"), ({"in_flight": 0}, "in_flight"),
        ({"drain_s": -1}, "drain_s"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(tmp_path: Path, gateway: Any, told: str) -> None:
    assert told in faults(tmp_path, gateway)


def test_every_fault_is_told(tmp_path: Path) -> None:
    told = faults(tmp_path, {"in_flight": 0, "drain_s": 0, "models": {"a": {"timeout_s": "x"}, "z": {}}})
    for place in ("gateway.in_flight", "gateway.drain_s", "gateway.models.a.timeout_s", "gateway.models.z"):
        assert place in told


def test_no_model_may_be_called_auto(tmp_path: Path) -> None:
    assert "is what clients name for the router" in faults(tmp_path, {}, {**A, "name": "auto"})


def test_a_pool_that_nobody_serves_is_a_fault(tmp_path: Path) -> None:
    own = {"name": "own", "engine": "echo", "command": "true"}
    with pytest.raises(DocumentError):
        read(tmp_path, {}, own)
