"""Requests of every shape get an answer that the interface's description knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection
from tests.integration.gateway.conftest import Gateway

schema = schemathesis.openapi.from_path(Path(__file__).with_name("openapi.json"))
#: What takes a body, which can be wrong.
TAKEN = ["POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"]
#: What the gateway does not need of a request is the upstream's to judge; keys and methods are tested below.
NOT_HERE = [negative_data_rejection, ignored_auth]


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    ("operation", "mode"),
    [*((operation, mode) for operation in TAKEN for mode in GenerationMode),
     ("GET /v1/models", GenerationMode.POSITIVE), ("GET /v1/models/{model}", GenerationMode.POSITIVE)],
)  # fmt: skip
def test_every_answer_is_one_of_the_description(
    gateway: Gateway, operation: str, mode: GenerationMode
) -> None:
    method, path = operation.split()

    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(
            base_url=gateway.address.removesuffix("/v1"),
            headers={"authorization": f"Bearer {gateway.token}"},
            excluded_checks=NOT_HERE,
        )

    holds()


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/embeddings", "/models", "/models/a"])
def test_without_a_key_nothing_is_told(gateway: Gateway, path: str) -> None:
    method = "GET" if path.startswith("/models") else "POST"
    answer = gateway.http.request(method, gateway.address + path, content=b"{")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "missing_api_key"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(gateway: Gateway, method: str) -> None:
    answers = [gateway.http.request(method, gateway.address + path) for path in ("/completions", "/models")]
    assert [answer.status_code for answer in answers] == [405, 405]
