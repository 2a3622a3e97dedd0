"""A live router decides as the router does."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers
from modelyard.routing.decision import Request
from modelyard.routing.embedders import load_embedder
from modelyard.routing.fitting import RouterOptions
from modelyard.routing.live import LiveRouter
from modelyard.routing.router import Router

WORDS = ["capital", "sum", "river", "proof", "python", "war", "music", "integral", "king", "poem"]


def fitted(**options: object) -> Router:
    chance = np.random.default_rng(3)
    texts = [" ".join(chance.choice(WORDS, 6)) + f" {n}" for n in range(120)]
    answers = Answers(
        models=("cheap", "dear"),
        examples=tuple(f"e{n}" for n in range(120)),
        errors_mn=(chance.random((2, 120)) < np.array([[0.5], [0.3]])).astype(float),
        cost_usd_mn=np.repeat(np.array([[1e-5], [9e-5]]), 120, axis=1),
    )
    return Router.fit(answers, texts, load_embedder("hashing"), RouterOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("estimator", ["empirical_bayes", "nearest"])
def test_it_decides_as_the_router_does(estimator: str) -> None:
    router = fitted(estimator=estimator)
    live, chance = LiveRouter(router), np.random.default_rng(4)
    requests = [Request(), Request(lambda_=0.3), Request(allow=("dear",)), Request(quality=0.6)]
    for _ in range(2):  # the second time out of what was decided before
        for n in range(60):
            text, request = " ".join(chance.choice(WORDS, 5)), requests[n % 4]
            assert live.route(text, request) == router.route(text, request)


def test_what_cannot_be_decided_is_an_error_each_time() -> None:
    live = LiveRouter(fitted())
    for _ in range(2):
        with pytest.raises(RoutingError, match="no model answers for"):
            live.route("a sum", Request(budget_usd=1e-9))
