"""Money in billionths of a dollar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.accounts.money import in_usd, nano_usd, usd_text


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"), (10_000_000_000, "10.00"), (5_500_000_000, "5.50"), (1, "0.000000001"),
        (1_234_560_000, "1.23456"), (-2_000_000_000, "-2.00"),
    ],
)  # fmt: skip
def test_amounts_for_people(nano: int, text: str) -> None:
    assert usd_text(nano) == text


@given(st.integers(-(10**15), 10**15))
def test_an_amount_comes_back(nano: int) -> None:
    assert nano_usd(in_usd(nano)) == nano


def test_sums_do_not_drift() -> None:
    assert sum([nano_usd(0.1)] * 10) == nano_usd(1.0)
