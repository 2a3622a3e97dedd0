"""What a worker answers: who may ask, what is asked, and the pages that are not passed on."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time

import orjson

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.key_ring import KeyProblem, KeyRing
from modelyard.gateway.accounts.keys import VirtualKey
from modelyard.gateway.accounts.lease import Admission
from modelyard.gateway.accounts.money import nano_usd
from modelyard.gateway.accounts.refusal import Limit, Refusal
from modelyard.gateway.books import Books
from modelyard.gateway.config import AUTO
from modelyard.gateway.exchanges.asked import Asked, BadRequestError, Endpoint, read_asked
from modelyard.gateway.exchanges.asking import Asking
from modelyard.gateway.exchanges.attempt import Waiting
from modelyard.gateway.exchanges.choosing import CHARS_PER_TOKEN, Choice, NoModelError
from modelyard.gateway.exchanges.exchange import Exchange
from modelyard.gateway.exchanges.receipt import Receipt
from modelyard.gateway.exchanges.ticket import Serving, Ticket
from modelyard.gateway.metrics import exposition
from modelyard.gateway.wire.inbound import Inbound
from modelyard.gateway.wire.messages import JSON_HEADER, error_body, retry_after

#: Headers of a request that go on to its upstream.
_PASSED_ON = (b"traceparent", b"tracestate", b"idempotency-key", b"openai-beta")
_TIMEOUT = b"x-modelyard-timeout-s"
#: Tokens of an answer that are set aside where a request names no most.
_TOKENS_SET_ASIDE = 512
_LONGEST_ID = 128


class RefusedError(Exception):
    """A request that is not let in."""

    def __init__(
        self,
        status: int,
        why: str,
        *,
        code: str,
        retry_after_s: float | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(why)
        self.status, self.code = status, code
        self.retry_after_s, self.parameter = retry_after_s, parameter


class WrongMethodError(RefusedError):
    """An address that takes another method."""

    def __init__(self, path: bytes, allow: str) -> None:
        super().__init__(405, f"{path.decode('latin-1')} takes {allow}", code="method_not_allowed")
        self.allow = allow


@dataclass(slots=True, kw_only=True)
class Service:
    """See the module; used by the connections of one event loop."""

    serving: Serving
    ring: KeyRing
    # Whether a request must show a key even if there is none yet.
    keys_required: bool
    books: Books
    waiting: Waiting
    # Monotonic seconds, those of the event loop.
    clock: Callable[[], float]
    # Of the gateway, where all workers write their counts.
    folder: Path
    # Takes a line for whoever runs the gateway.
    log: Callable[[str], None]
    draining: bool = False
    in_flight: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def handle(self, inbound: Inbound) -> None:
        """Answer one request; raises only when it is cancelled, because its client has gone."""
        try:
            await self._answer(inbound)
        except RefusedError as refusal:
            self._refuse(inbound, refusal)
        except BadRequestError as bad:
            status, code = (
                (404, "model_not_found") if isinstance(bad, NoModelError) else (400, "invalid_request")
            )
            self._refuse(inbound, RefusedError(status, str(bad), code=code, parameter=bad.parameter))
        except Exception as error:  # noqa: BLE001  (the outermost handler: one request must not end the others)
            self.log("".join(traceback.format_exception(error)))
            if inbound.begun:
                inbound.cut()
            else:
                self._refuse(
                    inbound, RefusedError(500, "the gateway has a defect; see its log", code="internal")
                )

    async def _answer(self, inbound: Inbound) -> None:
        path = _path_of(inbound.target)
        endpoint = _PASSED.get(path)
        if endpoint is not None:
            if inbound.method != b"POST":
                raise WrongMethodError(path, "POST")
            await self._exchange(inbound, endpoint)
            return
        page = _PAGES.get(path) or (_one_model if path.startswith(b"/v1/models/") else None)
        if page is None:
            raise RefusedError(404, "there is nothing at this address", code="not_found")
        if inbound.method not in (b"GET", b"HEAD"):
            raise WrongMethodError(path, "GET, HEAD")
        await page(self, inbound, path)

    async def _exchange(self, inbound: Inbound, endpoint: Endpoint) -> None:
        begun, serving, now = self.clock(), self.serving, time()
        key = self.key_of(inbound.headers, now)
        asked = read_asked(endpoint, inbound.body)
        if key is not None and asked.model != AUTO and not key.allows(asked.model):
            raise RefusedError(403, f"the key may not ask for {asked.model!r}", code="model_not_allowed")
        if self.in_flight >= serving.config.in_flight:
            raise RefusedError(
                429, "the gateway has too much to do; try again", code="overloaded", retry_after_s=1.0
            )
        allowed = self._allowed(key, asked)
        choice = serving.chooser.choose(asked, inbound.headers, allowed)
        if choice is None:
            raise NoModelError("no model may answer this", parameter="model")
        deadline = begun + self._deadline_s(inbound.headers)
        admission = None if key is None else await self._admitted(key, asked, choice, len(inbound.body), now)
        serving.retries.deposit()
        request_id = self._id_of(inbound.headers)
        headers, span = inbound.headers, None
        if self.books.traces is not None:
            span, onward = self.books.traces.begin(headers, endpoint.value, asked.model)
            headers = {**headers, **{name.encode(): value.encode() for name, value in onward.items()}}
        ticket = Ticket(
            id=request_id,
            asked=asked,
            key=key,
            admission=admission,
            admitted_at=now,
            begun=begun,
            deadline=deadline,
            headers=_passed_on(headers, request_id),
            allowed=allowed,
            span=span,
        )
        self.in_flight += 1
        try:
            receipt = Receipt(ticket=ticket, books=self.books, clock=self.clock)
            asking = Asking(
                ticket=ticket, headers=inbound.headers, serving=serving, receipt=receipt,
                waiting=self.waiting, choice=choice,
            )  # fmt: skip
            await Exchange(inbound=inbound, asking=asking, receipt=receipt).run()
        finally:
            self.in_flight -= 1

    def key_of(self, headers: Mapping[bytes, bytes], now: float) -> VirtualKey | None:
        """Whose request it is; None where no keys are asked for. Raises `RefusedError`."""
        if not self.keys_required and not len(self.ring):
            return None
        told = headers.get(b"authorization", b"")
        token = told[7:].strip() if told[:7].lower() == b"bearer " else headers.get(b"api-key", b"")
        if not token:
            raise RefusedError(
                401, "a key is missing; send Authorization: Bearer KEY", code="missing_api_key"
            )
        found = self.ring.find(token, now)
        if isinstance(found, KeyProblem):
            raise RefusedError(401, f"the key is {found.value}", code="invalid_api_key")
        return found

    def _allowed(self, key: VirtualKey | None, asked: Asked) -> frozenset[str]:
        """The models that may answer; empty: all."""
        models: frozenset[str] = frozenset() if key is None else key.models - {AUTO}
        if key is not None and key.limits.spend is not None:
            priced = frozenset(m.name for m in self.serving.config.models if m.price.known)
            models = (models & priced) if models else priced
            if not models or (asked.model != AUTO and asked.model not in models):
                why = "its price is not known, and the key has a limit in USD"
                raise RefusedError(403, f"{asked.model!r} may not be asked: {why}", code="model_not_allowed")
        return models

    async def _admitted(
        self, key: VirtualKey, asked: Asked, choice: Choice, body_bytes: int, now: float
    ) -> Admission:
        """Set aside what the request may take. Raises `RefusedError`."""
        prompt = body_bytes // CHARS_PER_TOKEN
        completion = 0 if asked.endpoint is Endpoint.EMBEDDINGS else asked.most_tokens
        completion = _TOKENS_SET_ASIDE if completion is None else completion
        usd = choice.model.price.cost_usd(prompt, completion, 0.0) or 0.0
        found = self.books.limiter.try_admit(key, nano_usd(usd), prompt + completion, now)
        if found is None:
            try:
                found = await self.books.limiter.admit(key, nano_usd(usd), prompt + completion)
            except GatewayError as error:
                self.log(f"limits: {error}")
                raise RefusedError(
                    503, "limits cannot be looked up; try again", code="limits_down", retry_after_s=1.0
                ) from error
        if isinstance(found, Refusal):
            code = "insufficient_quota" if found.limit is Limit.USD else "rate_limit_exceeded"
            raise RefusedError(429, found.message, code=code, retry_after_s=found.retry_after_s)
        return found

    def _deadline_s(self, headers: Mapping[bytes, bytes]) -> float:
        most = self.serving.config.patience.deadline_s
        told = headers.get(_TIMEOUT)
        if told is None:
            return most
        try:
            seconds = float(told)
        except ValueError as error:
            raise BadRequestError("x-modelyard-timeout-s is no number of seconds") from error
        if not seconds > 0:
            raise BadRequestError("x-modelyard-timeout-s is not above 0")
        return min(most, seconds)

    def _id_of(self, headers: Mapping[bytes, bytes]) -> str:
        """As the client calls its request, if that can stand in a header and a file."""
        told = headers.get(b"x-request-id", b"")
        if told and len(told) <= _LONGEST_ID and told.isascii() and (text := told.decode()).isprintable():
            return text
        return f"{self.books.worker}-{next(self._numbers):x}"

    def _refuse(self, inbound: Inbound, refusal: RefusedError) -> None:
        self.books.metrics.refused[refusal.code] += 1
        headers = JSON_HEADER + retry_after(refusal.retry_after_s)
        if isinstance(refusal, WrongMethodError):
            headers += b"allow: %b\r\n" % refusal.allow.encode()
        if refusal.status == 401:
            headers += b"www-authenticate: Bearer\r\n"
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            refusal.status, ""
        )
        body = error_body(
            refusal.status, str(refusal), kind=kind, code=refusal.code, parameter=refusal.parameter
        )
        inbound.respond(refusal.status, headers, body)


def _path_of(target: bytes) -> bytes:
    """Without the query; of a whole address, too, as RFC 9112 (3.2.2) wants it."""
    if not target.startswith(b"/") and b"://" in target:
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return target.partition(b"?")[0]


def _passed_on(headers: Mapping[bytes, bytes], request_id: str) -> bytes:
    """The lines of a request that its upstream gets, too."""
    lines = b"x-request-id: %b\r\n" % request_id.encode()
    for name in _PASSED_ON:
        value = headers.get(name)
        if value is not None:
            lines += b"%b: %b\r\n" % (name, value)
    return lines


async def _health(service: Service, inbound: Inbound, path: bytes) -> None:
    """The process lives."""
    inbound.respond(200, JSON_HEADER, b'{"status":"ok"}')


async def _ready(service: Service, inbound: Inbound, path: bytes) -> None:
    """It takes requests, and at least one address may be asked."""
    now = service.clock()
    usable = any(upstream.allows(now) for upstream in service.serving.upstreams.all())
    if service.draining or not usable:
        why = "draining" if service.draining else "no upstream may be asked"
        inbound.respond(503, JSON_HEADER, orjson.dumps({"status": why}))
    else:
        inbound.respond(200, JSON_HEADER, b'{"status":"ready"}')


async def _metrics(service: Service, inbound: Inbound, path: bytes) -> None:
    """All workers' counts."""
    service.books.metrics.gauges["requests_in_flight"] = service.in_flight
    service.books.metrics.write(service.folder, service.books.worker)
    inbound.respond(
        200, b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n", exposition(service.folder, time())
    )


async def _models(service: Service, inbound: Inbound, path: bytes) -> None:
    """What the client may name."""
    key = service.key_of(inbound.headers, time())
    names = [name for name in service.serving.chooser.names if _may_name(key, name)]
    data = [_told(name) for name in names]
    inbound.respond(200, JSON_HEADER, orjson.dumps({"object": "list", "data": data}))


async def _one_model(service: Service, inbound: Inbound, path: bytes) -> None:
    """One of them."""
    key = service.key_of(inbound.headers, time())
    name = path.removeprefix(b"/v1/models/").decode("latin-1")
    if name not in service.serving.chooser.names or not _may_name(key, name):
        raise NoModelError(f"there is no model {name!r} here", parameter="model")
    inbound.respond(200, JSON_HEADER, orjson.dumps(_told(name)))


def _may_name(key: VirtualKey | None, name: str) -> bool:
    """Whoever may ask for some models may let the router choose among them."""
    return key is None or name == AUTO or key.allows(name)


def _told(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "modelyard"}


_PASSED = {f"/v1{endpoint.value}".encode(): endpoint for endpoint in Endpoint}
_PAGES: Mapping[bytes, Callable[[Service, Inbound, bytes], Awaitable[None]]] = {
    b"/healthz": _health,
    b"/readyz": _ready,
    b"/metrics": _metrics,
    b"/v1/models": _models,
}
