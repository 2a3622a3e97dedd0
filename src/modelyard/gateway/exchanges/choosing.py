"""Which model a request goes to, and which one next: what the client named, or what the router decides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import inf
from typing import NamedTuple

from modelyard.core.errors import RoutingError
from modelyard.gateway.config import AUTO, GatewayConfig, Preference, Served
from modelyard.gateway.exchanges.asked import Asked, BadRequestError, Endpoint
from modelyard.routing.decision import Decision, Request
from modelyard.routing.live import LiveRouter
from modelyard.routing.router import Router

#: What a request may ask the router for, by header; one of the first four.
_WISHES = {
    b"x-modelyard-lambda": "lambda_",
    b"x-modelyard-lambda-usd": "lambda_usd",
    b"x-modelyard-budget-usd": "budget_usd",
    b"x-modelyard-quality": "quality",
}
_PREVIOUS = b"x-modelyard-previous"
#: Characters to a token where only an order of magnitude is needed.
CHARS_PER_TOKEN = 4


class NoModelError(BadRequestError):
    """There is no such model here, or none that may answer this."""


class Choice(NamedTuple):
    """A model for a request, and why. (Frozen dataclasses take microseconds longer to make.)"""

    model: Served
    reason: str
    cluster: int | None = None
    predicted_error: float | None = None
    predicted_usd: float | None = None


class Chooser:
    """Chooses; made anew when the pool or the router changes."""

    def __init__(self, config: GatewayConfig, router: Router | None) -> None:
        self._models: Mapping[str, Served] = {model.name: model for model in config.models}
        self._router = None if router is None else LiveRouter(router)
        self._preference = config.preference
        known = () if router is None else router.names
        self._routed = tuple(name for name in known if name in self._models)
        facts = [] if router is None else list(router.facts.values())
        self._tells_tools = any(each.tools for each in facts)
        self._tells_vision = any(each.vision for each in facts)
        self._tells_context = any(each.context_tokens for each in facts)
        self._requests: dict[tuple[object, ...], Request] = {}

    @property
    def names(self) -> list[str]:
        """What clients may name."""
        return [*([AUTO] if self._routed else []), *self._models]

    def choose(
        self,
        asked: Asked,
        headers: Mapping[bytes, bytes],
        allowed: Collection[str],
        without: Collection[str] = (),
    ) -> Choice | None:
        """The model for a request; None when nobody is left.

        Args:
            asked: The request.
            headers: Its headers, in which a client may tell what it wishes.
            allowed: The models that its key may use; empty: all.
            without: The models that could not answer it.

        Raises:
            NoModelError: None is right even if all could answer.
            BadRequestError: A wish cannot be read.
        """
        if asked.model == AUTO and self._routed:
            return self._routed_choice(asked, headers, allowed, without)
        named = self._models.get(asked.model)
        if named is None:
            raise NoModelError(
                f"there is no model {asked.model!r} here; name one of {', '.join(self.names)}",
                parameter="model",
            )
        for name in (named.name, *named.fallbacks):
            if name not in without and (not allowed or name in allowed or name == named.name):
                why = "asked for" if name == named.name else f"in place of {named.name}"
                return Choice(model=self._models[name], reason=why)
        return None

    def _routed_choice(
        self, asked: Asked, headers: Mapping[bytes, bytes], allowed: Collection[str], without: Collection[str]
    ) -> Choice | None:
        if self._router is None or asked.endpoint is Endpoint.EMBEDDINGS:
            raise NoModelError(
                "embeddings of different models cannot be compared; name one", parameter="model"
            )
        text = asked.text()
        try:
            request = self._request(asked, headers, frozenset(allowed), len(text))
            if without:
                left = tuple(name for name in request.allow if name not in without)
                if not left:
                    return None
                request = replace(request, allow=left)
            decision = self._router.route(text, request)
        except RoutingError as error:
            if without:
                return None
            raise NoModelError(str(error)) from error
        return _choice(self._models[decision.chosen], decision)

    def _request(
        self, asked: Asked, headers: Mapping[bytes, bytes], allowed: frozenset[str], chars: int
    ) -> Request:
        """What the router is asked; made once for all requests that are alike in it."""
        wishes = self._preference if not _has_wishes(headers) else _wishes(headers, self._preference)
        previous = headers.get(_PREVIOUS, b"").decode("latin-1") or None
        tools, vision = self._tells_tools and asked.tools, self._tells_vision and asked.vision
        context = chars // CHARS_PER_TOKEN + (asked.most_tokens or 0) if self._tells_context else 0
        alike = (wishes, allowed, previous, tools, vision, context)
        request = self._requests.get(alike)
        if request is None:
            names = tuple(name for name in self._routed if not allowed or name in allowed)
            if not names:
                raise NoModelError("the key may use none of the router's models", parameter="model")
            request = Request(
                lambda_=wishes.lambda_, lambda_usd=wishes.lambda_usd, budget_usd=wishes.budget_usd,
                quality=wishes.quality, allow=names, previous=previous, tools=tools, vision=vision,
                context_tokens=context or None,
            )  # fmt: skip
            if len(self._requests) >= 1000:
                self._requests.clear()
            self._requests[alike] = request
        return request


def _choice(model: Served, decision: Decision) -> Choice:
    return Choice(
        model=model,
        reason=decision.reason,
        cluster=decision.cluster,
        predicted_error=decision.predicted_error,
        predicted_usd=decision.cost_usd,
    )


def _has_wishes(headers: Mapping[bytes, bytes]) -> bool:
    return any(name in headers for name in _WISHES)


def _wishes(headers: Mapping[bytes, bytes], default: Preference) -> Preference:
    """The wish in the headers, or the default. Raises `BadRequestError`."""
    told = {name: headers[name] for name in _WISHES if name in headers}
    if len(told) > 1:
        raise BadRequestError("a request may wish for one of lambda, lambda-usd, budget-usd and quality")
    for name, value in told.items():
        most, within = (1.0, "from 0 to 1") if name.endswith(b"quality") else (inf, "of at least 0")
        try:
            number = float(value)
        except ValueError as error:
            raise BadRequestError(f"{name.decode()} is no number; give one {within}") from error
        if not 0 <= number <= most or number == inf:
            raise BadRequestError(f"{name.decode()} is {number:g}; give a number {within}")
        return Preference(**{_WISHES[name]: number})
    return default
