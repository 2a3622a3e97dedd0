"""The record of one request, as a worker journals it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import orjson


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    # The client hung up before its answer was whole.
    CLIENT_GONE = "client_gone"
    # No upstream answered.
    UPSTREAM_FAILED = "upstream_failed"
    # The upstream stopped in the middle of its answer.
    CUT = "cut"
    TIMED_OUT = "timed_out"
    # The gateway or the upstream would not do it.
    REFUSED = "refused"
    # No request but one attempt at it, which may be billed though somebody else gave the answer.
    LOST = "lost"


class UsageSource(StrEnum):
    """Where the numbers of tokens come from."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    NONE = "none"


class RequestRecord(NamedTuple):
    """One admitted request that has ended, however it ended. None means: not known, or there was none.

    A named tuple where the house has frozen dataclasses: those take 3 microseconds longer to make, of the
    10 that the accounts may take of a request.
    """

    request_id: str
    worker: str
    # Unix seconds, when it was admitted: what it spent counts in the windows of this moment.
    started_at: float
    endpoint: str
    asked_model: str
    status: int
    outcome: Outcome
    stream: bool
    latency_s: float
    attempts: int
    key: str | None = None
    served_model: str | None = None
    upstream: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usage_source: UsageSource = UsageSource.NONE
    # What it cost in billionths of a dollar; an unknown cost is None and counted apart, never 0.
    cost_nano_usd: int | None = None
    price_source: str | None = None
    # What was booked on the key's spend limit where that is not the cost: of an unknown cost, the reserve.
    booked_nano_usd: int | None = None
    first_byte_s: float | None = None
    # Why that model.
    reason: str | None = None
    cluster: int | None = None
    predicted_error: float | None = None
    # Texts, only of keys that let them be logged.
    prompt: str | None = None
    answer: str | None = None


FIELDS = RequestRecord._fields
_NEEDED = frozenset(FIELDS)


def line_of(record: RequestRecord) -> bytes:
    """The record as one line of JSON."""
    return orjson.dumps(dict(zip(FIELDS, record, strict=True)), option=orjson.OPT_APPEND_NEWLINE)


def read_line(line: bytes) -> dict[str, Any] | None:
    """The fields of a line, or None where it is not a whole one of ours."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and value.keys() >= _NEEDED else None
