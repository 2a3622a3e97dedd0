"""Windows of the calendar: they follow one another without a gap, and no one is in two."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.accounts.windows import Period, Window, window_of


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "moment", "name", "begins", "ends"),
    [
        (Period.MINUTE, "2026-11-26T13:46:59.9", "2026-11-26T13:46", "2026-11-26T13:46", "2026-11-26T13:47"),
        (Period.MINUTE, "2026-12-31T23:59:30", "2026-12-31T23:59", "2026-12-31T23:59", "2027-01-01"),
        (Period.HOUR, "2026-11-26T23:59:59", "2026-11-26T23", "2026-11-26T23:00", "2026-11-27"),
        (Period.DAY, "2026-11-26T00:00", "2026-11-26", "2026-11-26", "2026-11-27"),
        (Period.DAY, "2028-02-29T12:00", "2028-02-29", "2028-02-29", "2028-03-01"),
        (Period.MONTH, "2026-12-31T23:59:59", "2026-12", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2027-02-01T00:00", "2027-02", "2027-02-01", "2027-03-01"),
    ],
)
def test_the_window_of_a_moment(period: Period, moment: str, name: str, begins: str, ends: str) -> None:
    assert window_of(period, at(moment)) == Window(name, at(begins), at(ends))


def test_the_window_of_all_time_has_no_end() -> None:
    assert window_of(Period.TOTAL, at("2026-11-26")) == Window("total", 0.0, None)


@given(st.sampled_from([each for each in Period if each is not Period.TOTAL]), st.integers(0, 4_000_000_000))
def test_the_next_window_begins_where_one_ends(period: Period, moment_s: int) -> None:
    window = window_of(period, moment_s)
    assert window.ends_at_s is not None
    assert window.begins_at_s <= moment_s < window.ends_at_s
    assert window_of(period, window.begins_at_s) == window == window_of(period, window.ends_at_s - 0.001)
    later = window_of(period, window.ends_at_s)
    assert later.begins_at_s == window.ends_at_s
    assert later.id > window.id
