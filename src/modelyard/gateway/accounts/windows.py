"""Windows of the calendar, in UTC: the stretch of time over which a limit counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple


class Period(StrEnum):
    """How long a window lasts."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    # All of a key's life.
    TOTAL = "total"


class Window(NamedTuple):
    """One stretch of time: when it begins and when it is over (Unix seconds; None: never)."""

    id: str
    begins_at_s: float
    ends_at_s: float | None


def window_of(period: Period, now_s: float) -> Window:
    """The window of a moment (Unix seconds); the moment at which it ends belongs to the next one."""
    if period is Period.TOTAL:
        return Window("total", 0.0, None)
    now = datetime.fromtimestamp(now_s, UTC).replace(second=0, microsecond=0)
    if period is Period.MINUTE:
        return _window(f"{now:%Y-%m-%dT%H:%M}", now, now + timedelta(minutes=1))
    hour = now.replace(minute=0)
    if period is Period.HOUR:
        return _window(f"{hour:%Y-%m-%dT%H}", hour, hour + timedelta(hours=1))
    day = hour.replace(hour=0)
    if period is Period.DAY:
        return _window(f"{day:%Y-%m-%d}", day, day + timedelta(days=1))
    month = day.replace(day=1)
    return _window(f"{month:%Y-%m}", month, (month + timedelta(days=32)).replace(day=1))


def _window(name: str, begin: datetime, end: datetime) -> Window:
    return Window(name, begin.timestamp(), end.timestamp())
