"""Money as whole numbers of a billionth of a US dollar, so that sums do not drift."""

from __future__ import annotations

NANO_PER_USD = 1_000_000_000


def nano_usd(usd: float) -> int:
    """An amount in billionths of a dollar, rounded to the nearest."""
    return round(usd * NANO_PER_USD)


def in_usd(nano: int) -> float:
    """An amount in dollars."""
    return nano / NANO_PER_USD


def usd_text(nano: int) -> str:
    """An amount for people: at least cents, and as many further digits as it has."""
    whole, rest = divmod(abs(nano), NANO_PER_USD)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}{whole}.{digits}"
