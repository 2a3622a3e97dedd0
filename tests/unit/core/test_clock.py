"""Times are UTC and sort as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.clock import stamp, utc_now

moments = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001  (hypothesis adds the zone)
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def test_now_is_in_utc():
    assert utc_now().utcoffset() == timedelta(0)


def test_a_stamp_is_utc_wherever_the_moment_was_taken():
    local = datetime(2024, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    assert stamp(local) == "2024-05-01T10:30:00.000000+00:00"


@given(moments, moments)
def test_stamps_sort_as_moments_do(one, other):
    assert (stamp(one) < stamp(other)) == (one < other)
    assert datetime.fromisoformat(stamp(one)) == one
