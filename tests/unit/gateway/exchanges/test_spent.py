"""What upstreams tell of tokens is believed where it can be true, and is counted here where it cannot."""

from __future__ import annotations

import pytest

from modelyard.evaluation.pool import Price
from modelyard.gateway.accounts.records import UsageSource
from modelyard.gateway.exchanges.spent import Used, answer_text, believed, by_length, reported


def judged(usage: object, answer: str = "an answer") -> Used:
    return believed(reported(usage), lambda: answer, lambda: "the prompt", by_length)


@pytest.mark.parametrize(
    "usage",
    [
        None, [], "usage", {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 3},
        {"prompt_tokens": -1, "completion_tokens": 5}, {"prompt_tokens": 5, "completion_tokens": -1},
        {"prompt_tokens": 10**9, "completion_tokens": 1}, {"prompt_tokens": "5", "completion_tokens": "5"},
        {"prompt_tokens": 5.0, "completion_tokens": 5.0}, {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": None, "completion_tokens": None}, {"usage": {"prompt_tokens": 5}},
    ],
)  # fmt: skip
def test_what_cannot_be_true_is_counted_here(usage: object) -> None:
    used = judged(usage)
    assert used.source is UsageSource.ESTIMATED
    assert (used.prompt_tokens, used.completion_tokens) == (7, 3)


def test_what_can_be_true_is_believed() -> None:
    used = judged({"prompt_tokens": 3, "completion_tokens": 4, "more": {}})
    assert (used.prompt_tokens, used.completion_tokens, used.source) == (3, 4, UsageSource.REPORTED)


def test_an_answer_without_text_may_have_taken_nothing() -> None:
    assert judged({"prompt_tokens": 3, "completion_tokens": 0}, answer="").source is UsageSource.REPORTED


def test_a_price_that_is_not_known_is_not_zero() -> None:
    used = judged({"prompt_tokens": 3, "completion_tokens": 4})
    assert used.cost_nano_usd(Price(), 1.0) is None
    assert (
        used.cost_nano_usd(Price(prompt_usd_per_million=1.0, completion_usd_per_million=2.0), 1.0) == 11_000
    )


def test_the_text_of_an_answer_has_what_tools_are_called_with() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    message = {"content": "a", "reasoning_content": "b", "tool_calls": [call, None]}
    record = {"choices": [{"message": message}, {"text": "c"}, {"message": None, "text": None}, 7]}
    assert answer_text(record) == f"ab{call['function']}c"
