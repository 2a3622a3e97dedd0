"""Time as an argument: whoever needs the clock is given one, so that a test can hold it still."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds, as every record of ours carries it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
