"""How much of the request log is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How long the request log is kept; None is for ever."""

    keep_days: int | None = 90
    keep_bytes: int | None = None
