"""What is written down of one request: the answer that its client got, and attempts that gave none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from modelyard.gateway.accounts.records import Outcome, RequestRecord, UsageSource
from modelyard.gateway.books import Books
from modelyard.gateway.exchanges.choosing import Choice
from modelyard.gateway.exchanges.spent import Used, estimated
from modelyard.gateway.exchanges.ticket import Ticket
from modelyard.gateway.upstreams import Upstream

#: Of a request that took no tokens.
NOTHING = Used(prompt_tokens=0, completion_tokens=0, source=UsageSource.NONE)


@dataclass(slots=True, kw_only=True)
class Receipt:
    """See the module."""

    ticket: Ticket
    books: Books
    # Monotonic seconds.
    clock: Callable[[], float]
    # Upstreams that were asked.
    attempts: int = 0
    # Who gave the answer, and when it began.
    upstream: Upstream | None = None
    first_byte_s: float | None = None

    @property
    def keeps_texts(self) -> bool:
        """Whether the key lets prompts and answers be logged."""
        return self.ticket.key is not None and self.ticket.key.log_prompts

    def answered_by(self, upstream: Upstream) -> None:
        """An answer has begun."""
        self.upstream, self.first_byte_s = upstream, self.clock() - self.ticket.begun

    def lost(self, upstream: Upstream, choice: Choice, begun: float) -> None:
        """An attempt gave no answer and may be billed: at least its prompt was read."""
        used = estimated(self.ticket.asked.text(), "", self.books.count)
        cost = used.cost_nano_usd(upstream.model.price, self.clock() - begun)
        record = self._record(Outcome.LOST, 0, used, choice)
        record = record._replace(
            served_model=upstream.model.name, upstream=upstream.endpoint, cost_nano_usd=cost
        )
        self.books.lost(record, self.ticket.admission)

    def close(self, outcome: Outcome, status: int, used: Used, choice: Choice, answer: str | None) -> None:
        """The request has ended; this is the last that happens to it."""
        record = self._record(outcome, status, used, choice)
        if self.keeps_texts:
            record = record._replace(prompt=orjson.dumps(self.ticket.asked.record).decode(), answer=answer)
        span = self.ticket.span
        if span is not None and self.books.traces is not None:
            self.books.traces.end(span, record)
        self.books.close(record, self.ticket.admission)

    def _record(self, outcome: Outcome, status: int, used: Used, choice: Choice) -> RequestRecord:
        ticket, asked, upstream = self.ticket, self.ticket.asked, self.upstream
        latency_s = self.clock() - ticket.begun
        cost: int | None = 0
        if upstream is not None and used is not NOTHING:
            cost = used.cost_nano_usd(upstream.model.price, latency_s)
        return RequestRecord(
            request_id=ticket.id,
            worker=self.books.worker,
            started_at=ticket.admitted_at,
            endpoint=asked.endpoint.value,
            asked_model=asked.model,
            status=status,
            outcome=outcome,
            stream=asked.stream,
            latency_s=latency_s,
            attempts=self.attempts,
            key=None if ticket.key is None else ticket.key.id,
            served_model=None if upstream is None else upstream.model.name,
            upstream=None if upstream is None else upstream.endpoint,
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.completion_tokens,
            usage_source=used.source,
            cost_nano_usd=cost,
            price_source=None if upstream is None else upstream.model.price.told,
            first_byte_s=self.first_byte_s,
            reason=choice.reason,
            cluster=choice.cluster,
            predicted_error=choice.predicted_error,
        )
