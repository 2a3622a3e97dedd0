"""Where a request is written down when it has ended: journal, limits and counts, in this order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelyard.gateway.accounts.journal import RequestJournal
from modelyard.gateway.accounts.lease import Admission
from modelyard.gateway.accounts.limiter import Limiter
from modelyard.gateway.accounts.records import RequestRecord
from modelyard.gateway.exchanges.spent import TokenCount
from modelyard.gateway.metrics import Metrics

if TYPE_CHECKING:
    from modelyard.gateway.traces import Traces


@dataclass(slots=True, kw_only=True)
class Books:
    """The books of one worker."""

    worker: str
    journal: RequestJournal
    limiter: Limiter
    metrics: Metrics
    # Tokens of a text, where nobody tells them.
    count: TokenCount
    # Spans of requests, where they are asked for.
    traces: Traces | None = None
    _lost_usd: dict[Admission, int] = field(default_factory=dict)
    _heads: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def close(self, record: RequestRecord, admission: Admission | None) -> None:
        """Write down a request; its lost attempts are part of what it cost.

        Raises:
            GatewayError: The disk takes no line; limits and counts are right all the same.
        """
        if admission is not None:
            lost = self._lost_usd.pop(admission, 0)
            cost = record.cost_nano_usd
            if cost is None:  # what was set aside is booked
                cost = admission.usd_nano
                record = record._replace(booked_nano_usd=cost)
            tokens = (record.prompt_tokens or 0) + (record.completion_tokens or 0)
            self.limiter.settle(admission, cost + lost, tokens)
        self.metrics.answered(record)
        self.journal.append(record)

    def lost(self, record: RequestRecord, admission: Admission | None) -> None:
        """Write down an attempt that nobody got an answer of, and that may be billed. Raises as `close`."""
        if admission is not None and record.cost_nano_usd:
            self._lost_usd[admission] = self._lost_usd.get(admission, 0) + record.cost_nano_usd
        self.metrics.spent(record)
        self.journal.append(record)

    def answered_by(self, model: str, reason: str) -> bytes:
        """The headers that tell which model answered, and why."""
        head = self._heads.get((model, reason))
        if head is None:
            told = reason.encode("ascii", "replace")[:200].translate(None, b"\r\n\0")
            head = b"x-modelyard-model: %b\r\nx-modelyard-reason: %b\r\n" % (model.encode(), told)
            if len(self._heads) >= 10_000:
                self._heads.clear()
            self._heads[(model, reason)] = head
        return head
