"""The pool section of a yard.yaml, and what answers cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.evaluation.pool import Price, read_entry, read_pool
from modelyard.results.engines import Reply

PATH = Path("/yard/yard.yaml")
ENDPOINT = {"endpoint": "http://h/v1"}


def entry(name="m", **fields):
    return {"name": name, **ENDPOINT, **fields}


def test_a_pool_is_read_with_its_manners_and_prices():
    document = {
        "name": "y",
        "models": "of no interest here",
        "pool": [
            entry(parallel=2, requests_per_minute=30, retries=0, price={"request_usd": 0}, revision="v2"),
            {"name": "c", "engine": "command", "run": "cat"},
        ],
    }
    first, second = read_pool(document, path=PATH)
    assert (first.manners.parallel, first.manners.requests_per_minute, first.manners.retries) == (2, 30.0, 0)
    assert first.price.request_usd == 0.0 and first.price.hour_usd is None
    assert second.settings.identity["engine"] == "command"
    assert second.manners.requests_per_minute is None
    assert first.digest != read_pool({"pool": [entry()]}, path=PATH)[0].digest, "a revision is another model"
    assert [model.name for model in read_pool(document, path=PATH, only=["c"])] == ["c"]
    assert read_entry(first.entry, place="p", folder=PATH.parent) == first


def test_every_fault_is_told_at_once():
    document = {
        "pool": [
            entry(paralel=2),
            entry(),
            {"name": "../x", "engine": "nothing"},
            entry("z", price={"request_usd": -1, "tokens": 2}, requests_per_minute="many"),
        ]
    }
    with pytest.raises(DocumentError) as caught:
        read_pool(document, path=PATH, only=["lost"])
    keys = [fault.key for fault in caught.value.faults]
    for key in (
        "pool[0].paralel", "pool[2].name", "pool[2].engine", "pool[2].endpoint",
        "pool[3].requests_per_minute", "pool[3].price.request_usd", "pool[3].price.tokens", "pool",
    ):  # fmt: skip
        assert key in keys, key
    assert {fault.value for fault in caught.value.faults if fault.key == "pool"} == {'"m"', '"lost"'}


@pytest.mark.parametrize("document", [{}, {"pool": []}, {"pool": "x"}, None])
def test_a_document_without_a_pool_is_refused(document):
    with pytest.raises(DocumentError):
        read_pool(document, path=PATH)


REPLY = Reply(text="x", prompt_tokens=1000, completion_tokens=500, latency_s=3.6, cost_usd=7.0)


@pytest.mark.parametrize(
    ("price", "reply", "cost"),
    [
        ({"prompt_usd_per_million": 2.0, "completion_usd_per_million": 8.0}, REPLY, 0.006),
        ({"request_usd": 0.5, "hour_usd": 10.0}, REPLY, 0.51),
        ({"prompt_usd_per_million": 2.0}, Reply(text="x"), None),  # tokens that nobody counted
        ({"prompt_usd_per_million": 0.0}, Reply(text="x"), 0.0),
        ({}, REPLY, 7.0),  # what the server says
        ({}, Reply(text="x"), None),
        ({"request_usd": 0.0}, REPLY, 0.0),
    ],
)
def test_a_price_that_is_not_known_is_not_free(price, reply, cost):
    assert Price(**price).of(reply) == (None if cost is None else pytest.approx(cost))


@given(st.floats(0, 100), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_cost_grows_with_what_was_said(rate, fewer, more):
    price = Price(prompt_usd_per_million=rate)
    costs = [price.of(Reply(text="x", prompt_tokens=count)) for count in sorted((fewer, more))]
    assert costs[0] <= costs[1]
