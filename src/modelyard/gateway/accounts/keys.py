"""Virtual keys: what a client of the gateway shows, what it may use, and how much.

A token is `sk-my-<id>-<secret>`: clients and scanners for leaked secrets take it for what it is. Only its
digest is kept; the secret has 256 random bits, so that a plain SHA-256 cannot be turned round by guessing.
This module does not know where keys are stored.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.money import NANO_PER_USD, usd_text
from modelyard.gateway.accounts.windows import Period

_PREFIX = "sk-my-"
_SECRET_BYTES = 32
_LAST_CHARACTERS = 4
_ID_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_ID_LENGTH = 8
_SPEND = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(?:/(hour|day|month|total))?", re.ASCII)
_AGE = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
_UNIT_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendLimit:
    """The most that may be spent in each window of a period."""

    nano_usd: int
    period: Period

    def __str__(self) -> str:
        amount = usd_text(self.nano_usd)
        return amount if self.period is Period.TOTAL else f"{amount}/{self.period}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a key may use; None is no limit."""

    spend: SpendLimit | None = None
    # Requests and tokens in each minute of the clock, over all workers.
    rpm: int | None = None
    tpm: int | None = None
    # Requests in flight at a time, in each worker.
    parallel: int | None = None

    def record(self) -> dict[str, Any]:
        """The limits as JSON."""
        return asdict(self)

    @staticmethod
    def of(record: dict[str, Any]) -> KeyLimits:
        """Limits from `record()`."""
        spend = record.pop("spend")
        if spend is not None:
            spend = SpendLimit(nano_usd=int(spend["nano_usd"]), period=Period(spend["period"]))
        return KeyLimits(spend=spend, **record)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualKey:
    """One key as the gateway knows it; times are Unix seconds."""

    id: str
    name: str
    created_at_s: float
    expires_at_s: float | None
    revoked_at_s: float | None
    # The names that may be asked for; empty: all.
    models: frozenset[str]
    limits: KeyLimits
    # Whether prompts and answers of this key's requests are kept in the request log.
    log_prompts: bool
    # The token's last characters, by which people know it again.
    last: str

    def allows(self, model: str) -> bool:
        """Whether a client with this key may ask for a model of this name."""
        return not self.models or model in self.models

    def record(self) -> dict[str, Any]:
        """The key as JSON; it has nothing by which the token could be found."""
        fields = ("id", "name", "last", "created_at_s", "expires_at_s", "revoked_at_s", "log_prompts")
        facts: dict[str, Any] = {name: getattr(self, name) for name in fields}
        return {**facts, "models": sorted(self.models), "limits": self.limits.record()}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What a new key is to be."""

    name: str = ""
    expires_in_s: float | None = None
    models: frozenset[str] = frozenset()
    limits: KeyLimits = KeyLimits()
    log_prompts: bool = False


def new_id() -> str:
    """A key's name: short, without letters that look alike."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))


def new_token(key_id: str) -> str:
    """A token of 256 random bits that begins with the key's id."""
    return f"{_PREFIX}{key_id}-{secrets.token_urlsafe(_SECRET_BYTES)}"


def last_of(token: str) -> str:
    """What of a token may be shown."""
    return token[-_LAST_CHARACTERS:]


def digest_of(token: bytes) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token).digest()


def parse_spend_limit(text: str) -> SpendLimit:
    """Read `10/day`, `5.50/hour`, `100/month` or `50` (in total).

    Raises:
        GatewayError: It is none of these, or nothing could ever be spent.
    """
    match = _SPEND.fullmatch(text.strip())
    if match is None:
        raise GatewayError(
            f"spend limit = {text}: is not an amount of dollars and a period; write 10/day, 5.50/hour, "
            "100/month, or 50 for all of the key's life"
        )
    nano = int(Decimal(match[1]) * NANO_PER_USD)
    if nano == 0:
        raise GatewayError(f"spend limit = {text}: allows nothing; give more than 0, or revoke the key")
    return SpendLimit(nano_usd=nano, period=Period(match[2] or "total"))


def parse_age(text: str) -> float:
    """Read `30d`, `12h`, `45m` or `2w` as seconds.

    Raises:
        GatewayError: It is none of these.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise GatewayError(f"time to live = {text}: is not a length of time; write 30d, 12h, 45m or 2w")
    return float(int(match[1]) * _UNIT_S[match[2]])
