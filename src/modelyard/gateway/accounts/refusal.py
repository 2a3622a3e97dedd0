"""Why a limiter did not let a request in, and what a client is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from modelyard.gateway.accounts.money import usd_text


class Limit(StrEnum):
    """Which limit of a key."""

    USD = "usd"
    RPM = "rpm"
    TPM = "tpm"
    PARALLEL = "parallel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request may not go on; amounts in requests, tokens or billionths of a dollar."""

    key: str
    limit: Limit
    used: int
    most: int
    # What the request would need.
    need: int
    # `day:2026-11-26`, or empty where the limit has no window.
    window: str
    # When it may be let in; None: never, it needs more than the limit, or the window has no end.
    retry_after_s: float | None

    @property
    def message(self) -> str:
        """The refusal in a sentence for the client."""
        when = "" if self.retry_after_s is None else f"; try again in {self.retry_after_s:.0f} s"
        if self.limit is Limit.PARALLEL:
            return f"key {self.key} has {self.used} requests in flight of at most {self.most}{when}"
        if self.limit is Limit.USD:
            used, most, need = (f"{usd_text(nano)} USD" for nano in (self.used, self.most, self.need))
        else:
            unit = "requests" if self.limit is Limit.RPM else "tokens"
            used, most, need = f"{self.used} {unit}", f"{self.most}", f"{self.need}"
        place = self.window.partition(":")[0]
        of = "in total" if place == "total" else f"this {place}"
        return (
            f"key {self.key} has {used} of {most} {of} used or set aside; this request may need {need}{when}"
        )
