"""Who of a pool is asked for one request, who next, and how often: until an answer has begun.

Nothing reaches the client before that, so that the next upstream can be asked without its knowing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.gateway.exchanges.attempt import DeclinedError, Opened, Waiting, open_answer
from modelyard.gateway.exchanges.choosing import Choice
from modelyard.gateway.exchanges.receipt import Receipt
from modelyard.gateway.exchanges.ticket import Serving, Ticket
from modelyard.gateway.upstreams import Upstream
from modelyard.gateway.wire.outbound import UpstreamError

#: Failures after which the upstream may have worked, and wants to be paid.
_MAY_BE_BILLED = frozenset({"cut", "timed_out", "garbage", "error_event"})


class UnansweredError(Exception):
    """Nobody answered; what the client is told."""

    def __init__(self, status: int, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.status, self.retry_after_s = status, retry_after_s


@dataclass(slots=True, kw_only=True)
class Asking:
    """See the module; `choice` is that of the answer when there is one."""

    ticket: Ticket
    # Of the request: in them a client may tell what it wishes.
    headers: Mapping[bytes, bytes]
    serving: Serving
    receipt: Receipt
    waiting: Waiting
    choice: Choice
    _tried: set[Upstream] = field(default_factory=set)
    _exhausted: set[str] = field(default_factory=set)
    _failures: list[tuple[str, UpstreamError]] = field(default_factory=list)

    async def opened(self) -> Opened:
        """An answer that has begun. Raises `UnansweredError`."""
        attempts = self.serving.config.patience.attempts
        while True:
            upstream = self._next_upstream()
            again = self.receipt.attempts > 0
            if again and not self.serving.retries.withdraw(self.receipt.clock()):
                raise self._unanswered(", and there were too many retries")
            hedge_s = upstream.model.hedge_after_s
            try:
                if hedge_s is None:
                    opened = await self._asked(upstream, self.choice)
                else:
                    opened = await self._hedged(upstream, hedge_s)
            except UpstreamError as failure:
                self._failures.append((upstream.model.name, failure))
            else:
                if again:
                    self.serving.retries.give_back()
                return opened
            if self.receipt.clock() >= self.ticket.deadline or self.receipt.attempts >= attempts:
                raise self._unanswered()

    def release(self, opened: Opened) -> None:
        """Give the connection of an answer back; a second time does nothing."""
        if opened.connection in self.waiting.connections:
            self.waiting.connections.discard(opened.connection)
            opened.upstream.in_flight -= 1
            opened.upstream.connections.put_back(opened.connection)

    # -- whom ----------------------------------------------------------------------------------

    def _next_upstream(self) -> Upstream:
        """An address that may be asked, of the chosen model or the one after it. Raises `UnansweredError`."""
        while True:
            upstream = self.serving.upstreams.best(self.choice.model.name, self.receipt.clock(), self._tried)
            if upstream is not None:
                self._tried.add(upstream)
                return upstream
            self._exhausted.add(self.choice.model.name)
            ticket = self.ticket
            choice = self.serving.chooser.choose(ticket.asked, self.headers, ticket.allowed, self._exhausted)
            if choice is None:
                raise self._unanswered()
            self.choice = choice

    # -- once ----------------------------------------------------------------------------------

    async def _asked(self, upstream: Upstream, choice: Choice) -> Opened:
        """Ask one address, and tell its health what came of it. Raises `UpstreamError`."""
        asked, breaker, begun = self.ticket.asked, upstream.breaker, self.receipt.clock()
        request = upstream.request(asked.endpoint, self.ticket.headers, asked.body(upstream.model.model))
        self.receipt.attempts += 1
        upstream.in_flight += 1
        breaker.begun()
        try:
            opened = await open_answer(
                upstream,
                request,
                asked,
                expires=begun + self._time_for(upstream, begun),
                waiting=self.waiting,
            )
        except UpstreamError as failure:
            self._told_failure(upstream, choice, failure, begun)
            raise
        except BaseException:  # the client has gone, or another was faster
            upstream.in_flight -= 1
            breaker.given_up()
            self.receipt.lost(upstream, choice, begun)
            raise
        breaker.succeeded(self.receipt.clock())  # a stream that is cut later has failed all the same
        if opened.events is None:
            self.release(opened)
        return opened

    def _time_for(self, upstream: Upstream, now: float) -> float:
        """How long an attempt may take: half of what is left while somebody else could be asked."""
        model, left = upstream.model, self.ticket.deadline - now
        alone = self.choice.cluster is None and len(model.endpoints) == 1 and not model.fallbacks
        last = self.receipt.attempts >= self.serving.config.patience.attempts
        return min(model.timeout_s, left if alone or last else left / 2)

    def _told_failure(self, upstream: Upstream, choice: Choice, failure: UpstreamError, begun: float) -> None:
        upstream.in_flight -= 1
        now = self.receipt.clock()
        if isinstance(failure, DeclinedError) and failure.rest_s is not None:
            upstream.breaker.rest(now + failure.rest_s)
        else:
            upstream.breaker.failed(now)
        self.receipt.books.metrics.upstream_failed(upstream.model.name, failure.kind)
        if failure.kind in _MAY_BE_BILLED:
            self.receipt.lost(upstream, choice, begun)

    # -- twice ---------------------------------------------------------------------------------

    async def _hedged(self, upstream: Upstream, hedge_s: float) -> Opened:
        """Ask one address, and a second when the first is slow; the first answer counts.

        "The tail at scale" (Dean and Barroso, 2013). Raises `UpstreamError` when both fail.
        """
        first = asyncio.ensure_future(self._asked(upstream, self.choice))
        running = {first: self.choice}
        try:
            await asyncio.wait(running, timeout=hedge_s)
            if not first.done() and (second := self._hedge()) is not None:
                running[asyncio.ensure_future(self._asked(second, self.choice))] = self.choice
            failure: UpstreamError | None = None
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    choice = running.pop(task)
                    try:
                        opened = task.result()
                    except UpstreamError as error:
                        failure = error
                    else:
                        self.choice = choice
                        return opened
            raise failure or UpstreamError("did not answer")
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._discard(running)

    def _hedge(self) -> Upstream | None:
        """Whom to ask besides, if anybody; the choice follows."""
        if not self.serving.retries.withdraw(self.receipt.clock()):
            return None
        try:
            return self._next_upstream()
        except UnansweredError:
            return None

    def _discard(self, running: Mapping[asyncio.Task[Opened], Choice]) -> None:
        """Let go of an answer that came at the very moment when it was not wanted any more."""
        for task, choice in running.items():
            if not task.cancelled() and task.exception() is None:
                opened = task.result()
                self.release(opened)
                opened.upstream.breaker.given_up()
                self.receipt.lost(opened.upstream, choice, self.receipt.clock())

    # ------------------------------------------------------------------------------------------

    def _unanswered(self, besides: str = "") -> UnansweredError:
        """What the client is told when nobody answered."""
        now, kinds = self.receipt.clock(), {failure.kind for _, failure in self._failures}
        upstreams = self.serving.upstreams.of_model(self.choice.model.name)
        rest_s = max([1.0, *(upstream.breaker.returns_in(now) for upstream in upstreams)])
        if not self._failures:
            return UnansweredError(503, "no model that may answer can be asked now; try again", rest_s)
        tale = "; ".join(f"{name!r} {failure}" for name, failure in self._failures)
        why = f"no model answered: {tale}{besides}"
        if kinds == {"timed_out"}:
            return UnansweredError(504, why)
        if kinds == {"status_429"}:
            return UnansweredError(429, why, rest_s)
        return UnansweredError(502, why)
