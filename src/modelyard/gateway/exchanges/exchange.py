"""One request and its answer: what the client gets, and what is written down of it.

Once an answer has begun, an upstream that fails is an error to the client: an error event and a cut
connection, never an end that looks like one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import inf

from modelyard.gateway.accounts.records import Outcome
from modelyard.gateway.exchanges.asked import BadRequestError
from modelyard.gateway.exchanges.asking import Asking, UnansweredError
from modelyard.gateway.exchanges.attempt import Opened
from modelyard.gateway.exchanges.events import EventStream
from modelyard.gateway.exchanges.receipt import NOTHING, Receipt
from modelyard.gateway.exchanges.spent import Used, answer_text, believed, reported
from modelyard.gateway.wire.inbound import Inbound
from modelyard.gateway.wire.messages import EVENTS_HEADER, JSON_HEADER, error_body, retry_after
from modelyard.gateway.wire.outbound import UpstreamError

#: What an upstream has that says it answers no more may take so long to end its message.
_AFTER_DONE_S = 1.0
#: Of a request whose client did not wait for an answer; nobody sees it but the log.
_CLIENT_GONE = 499


@dataclass(slots=True, kw_only=True)
class Exchange:
    """See the module; one for each request."""

    inbound: Inbound
    asking: Asking
    receipt: Receipt

    async def run(self) -> None:
        """Answer the request.

        Raises:
            CancelledError: The client has gone.
            BadRequestError: The request cannot be passed on.
        """
        try:
            opened = await self.asking.opened()
        except UnansweredError as told:
            self._refuse(told)
            return
        except BadRequestError:  # it could be read, but not written for an upstream
            self._close(Outcome.REFUSED, 400, NOTHING, answer=None)
            raise
        except BaseException:  # the client has gone
            self._close(Outcome.CLIENT_GONE, _CLIENT_GONE, NOTHING, answer=None)
            raise
        self.receipt.answered_by(opened.upstream)
        if opened.events is None:
            self._pass_whole(opened)
        else:
            await self._pass_stream(opened, opened.events)

    def _pass_whole(self, opened: Opened) -> None:
        """Pass a whole answer on."""
        if opened.status != 200:
            header = b"content-type: %b\r\n" % opened.content_type
            self.inbound.respond(opened.status, self._headers(header), opened.body)
            self._close(Outcome.REFUSED, opened.status, NOTHING, answer=None)
            return
        asked, record = self.receipt.ticket.asked, opened.record or {}
        used = reported(record.get("usage"))
        if used is None or not used.completion_tokens:
            used = believed(used, lambda: answer_text(record), asked.text, self.receipt.books.count)
        nano_usd = used.cost_nano_usd(opened.upstream.model.price, self.receipt.first_byte_s or 0.0)
        cost = b"" if nano_usd is None else b"x-modelyard-cost-usd: %.9f\r\n" % (nano_usd * 1e-9)
        self.inbound.respond(200, self._headers(JSON_HEADER + cost), opened.body)
        self._close(Outcome.OK, 200, used, answer=answer_text(record) if self.receipt.keeps_texts else None)

    async def _pass_stream(self, opened: Opened, events: EventStream) -> None:
        """Pass a stream on, event by event."""
        receipt, upstream, outcome = self.receipt, opened.upstream, Outcome.CLIENT_GONE
        try:
            self.inbound.begin(200, self._headers(EVENTS_HEADER))
            self.inbound.write(opened.body)
            await self._pass_events(opened, events)
            outcome = Outcome.OK
            self.inbound.finish()
            await self._read_end(opened)
        except UpstreamError as failure:
            outcome = Outcome.TIMED_OUT if failure.kind == "timed_out" else Outcome.CUT
            upstream.breaker.failed(receipt.clock())
            receipt.books.metrics.upstream_failed(upstream.model.name, failure.kind)
            self._cut(failure)
        finally:
            self.asking.release(opened)
            used = believed(
                reported(events.usage), events.text, receipt.ticket.asked.text, receipt.books.count
            )
            self._close(outcome, 200, used, answer=events.text() if receipt.keeps_texts else None)

    async def _pass_events(self, opened: Opened, events: EventStream) -> None:
        """The events of a stream to its end. Raises `UpstreamError`."""
        connection, inbound, clock = opened.connection, self.inbound, self.receipt.clock
        silence_s = self.asking.serving.config.patience.silence_s
        deadline = self.receipt.ticket.deadline
        while not events.done:
            if inbound.congested:
                connection.expires = inf  # it is the client that lets us wait
                await inbound.taken()
            connection.expires = min(clock() + silence_s, deadline)
            part = await connection.part()
            try:
                passed = events.feed(part) if part else events.rest()
            except OverflowError as error:
                raise UpstreamError(str(error), kind="garbage") from error
            if part or events.whole:  # the piece of an event would spoil the error that follows
                inbound.write(passed)
            if events.error is not None:
                raise UpstreamError("told an error within its stream", kind="error_event")
            if not part:
                break
        if not events.whole:
            raise UpstreamError("ended its stream in the middle of the answer", kind="cut")

    async def _read_end(self, opened: Opened) -> None:
        """Read the end of a message, so that its connection can be used again."""
        connection = opened.connection
        connection.expires = self.receipt.clock() + _AFTER_DONE_S
        with suppress(UpstreamError):  # the answer was whole
            while not connection.whole and await connection.part():
                pass

    def _cut(self, failure: UpstreamError) -> None:
        """Tell the client that its answer is not whole, in the stream and by ending the connection."""
        if failure.kind != "error_event":
            why = f"the model {self.asking.choice.model.name!r} {failure}"
            self.inbound.write(b"data: %b\n\n" % error_body(502, why, code="upstream_cut"))
        self.inbound.cut()

    def _refuse(self, told: UnansweredError) -> None:
        headers = self._headers(JSON_HEADER + retry_after(told.retry_after_s))
        body = error_body(told.status, str(told), kind="upstream_error", code="upstream_failed")
        self.inbound.respond(told.status, headers, body)
        outcome = Outcome.TIMED_OUT if told.status == 504 else Outcome.UPSTREAM_FAILED
        self._close(outcome, told.status, NOTHING, answer=None)

    def _headers(self, first: bytes) -> bytes:
        """Whom the client owes its answer to, and why."""
        choice, receipt = self.asking.choice, self.receipt
        told = receipt.books.answered_by(choice.model.name, choice.reason)
        return b"%bx-request-id: %b\r\n%b" % (first, receipt.ticket.id.encode(), told)

    def _close(self, outcome: Outcome, status: int, used: Used, *, answer: str | None) -> None:
        self.receipt.close(outcome, status, used, self.asking.choice, answer)
