"""Virtual keys: tokens, limits, and how both are written."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import GatewayError
from modelyard.core.redaction import REDACTED, scrubbed
from modelyard.gateway.accounts.keys import (
    KeyLimits,
    SpendLimit,
    last_of,
    new_id,
    new_token,
    parse_age,
    parse_spend_limit,
)
from modelyard.gateway.accounts.windows import Period

DOLLAR = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "nano", "period"),
    [
        ("10/day", 10 * DOLLAR, Period.DAY), ("5.50/hour", 5_500_000_000, Period.HOUR),
        ("100/month", 100 * DOLLAR, Period.MONTH), ("50", 50 * DOLLAR, Period.TOTAL),
        ("50/total", 50 * DOLLAR, Period.TOTAL), (" 0.000000001/day ", 1, Period.DAY),
    ],
)  # fmt: skip
def test_spend_limits(text: str, nano: int, period: Period) -> None:
    assert parse_spend_limit(text) == SpendLimit(nano_usd=nano, period=period)


@pytest.mark.parametrize(
    "text",
    ["", "ten/day", "10/", "10/minute", "10/week", "-1/day", "1e3/day", "10 /day", "0.0000000001", "１０"],
)
def test_what_is_no_spend_limit_is_refused_by_name(text: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(f"spend limit = {text}: ") + ".*write 10/day"):
        parse_spend_limit(text)


def test_a_limit_that_allows_nothing_is_refused() -> None:
    with pytest.raises(GatewayError, match="allows nothing; give more than 0, or revoke"):
        parse_spend_limit("0/day")


@given(st.integers(1, 10**17), st.sampled_from([Period.HOUR, Period.DAY, Period.MONTH, Period.TOTAL]))
def test_a_spend_limit_is_read_as_it_is_written(nano: int, period: Period) -> None:
    limit = SpendLimit(nano_usd=nano, period=period)
    assert parse_spend_limit(str(limit)) == limit


@given(st.text(max_size=12))
def test_no_text_is_worse_than_refused(text: str) -> None:
    with contextlib.suppress(GatewayError):
        assert parse_spend_limit(text).nano_usd > 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_times_to_live(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0d", "d", "1.5d", "-1d", "1y"])
def test_what_is_no_time_to_live_is_refused(text: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(f"time to live = {text}: ")):
        parse_age(text)


def test_limits_come_back_from_json() -> None:
    for limits in (
        KeyLimits(), KeyLimits(spend=parse_spend_limit("1/day"), rpm=2, tpm=3, parallel=4), KeyLimits(rpm=60)
    ):  # fmt: skip
        assert KeyLimits.of(json.loads(json.dumps(limits.record()))) == limits


def test_a_token_is_long_new_each_time_and_known_as_a_secret() -> None:
    tokens = {new_token(new_id()) for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert re.fullmatch(r"sk-my-[a-z2-9]{8}-[A-Za-z0-9_-]{43}", token)
        assert scrubbed(f"Authorization: {token}", ()) == f"Authorization: {REDACTED}"
        assert token.endswith(last_of(token)) and len(last_of(token)) == 4
