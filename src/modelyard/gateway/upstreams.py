"""The addresses of a pool: their connections, their health, and what a request to them looks like."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from modelyard import __version__
from modelyard.core.errors import GatewayError
from modelyard.gateway.config import GatewayConfig, Served
from modelyard.gateway.exchanges.asked import Endpoint
from modelyard.gateway.health import Breaker
from modelyard.gateway.wire.pool import ConnectionPool, Origin


@dataclass(slots=True, kw_only=True, eq=False)
class Upstream:
    """One address that serves one model; equal to itself only."""

    model: Served
    endpoint: str
    key: str = field(repr=False)
    connections: ConnectionPool
    breaker: Breaker
    # The head of a request by interface, up to the headers of one request.
    heads: Mapping[Endpoint, bytes] = field(repr=False)  # holds the key
    in_flight: int = 0

    def request(self, endpoint: Endpoint, headers: bytes, body: bytes) -> bytes:
        """One request as it goes out; `headers` are lines of its own."""
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (self.heads[endpoint], headers, len(body), body)

    def allows(self, now: float) -> bool:
        """Whether it may be asked."""
        return self.in_flight < self.model.parallel and self.breaker.allows(now)


class Upstreams:
    """All addresses of a configuration, by model."""

    def __init__(self, by_model: Mapping[str, tuple[Upstream, ...]]) -> None:
        self._by_model = by_model

    @classmethod
    def of(
        cls, config: GatewayConfig, environment: Mapping[str, str], before: Upstreams | None = None
    ) -> Upstreams:
        """Open none yet; what is as it was `before` keeps its connections and its health.

        Raises:
            GatewayError: The environment lacks the key of a model, or holds what no header can.
        """
        kept = [] if before is None else before.all()
        old: dict[tuple[Served, str, str], Upstream | None] = {(u.model, u.endpoint, u.key): u for u in kept}
        made: dict[str, tuple[Upstream, ...]] = {}
        for model in config.models:
            key = _key(model, environment)
            made[model.name] = tuple(
                old.pop((model, endpoint, key), None) or _upstream(model, endpoint, key, config)
                for endpoint in model.endpoints
            )
        for upstream in (upstream for each in made.values() for upstream in each):
            upstream.breaker.settings = config.breaking
            upstream.connections.connect_s = config.patience.connect_s
        return cls(made)

    def of_model(self, name: str) -> tuple[Upstream, ...]:
        """The addresses of a model; none where it is not served."""
        return self._by_model.get(name, ())

    def all(self) -> list[Upstream]:
        """Every address."""
        return [upstream for each in self._by_model.values() for upstream in each]

    def best(self, name: str, now: float, tried: Collection[Upstream]) -> Upstream | None:
        """Of a model's addresses that may be asked and were not, the one with the least under way."""
        found: Upstream | None = None
        for upstream in self._by_model.get(name, ()):
            if (
                upstream not in tried
                and upstream.allows(now)
                and (found is None or upstream.in_flight < found.in_flight)
            ):
                found = upstream
        return found

    def close_others(self, kept: Upstreams) -> None:
        """Close the connections of addresses that are no longer used; what is under way goes on."""
        still = set(kept.all())
        for upstream in self.all():
            if upstream not in still:
                upstream.connections.close()


def _upstream(model: Served, endpoint: str, key: str, config: GatewayConfig) -> Upstream:
    origin = Origin.of(endpoint)
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    heads = {
        each: (
            f"POST {origin.prefix}{each.value} HTTP/1.1\r\nhost: {origin.authority}\r\n"
            f"content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
            f"user-agent: modelyard/{__version__}\r\n{authorization}"
        ).encode()
        for each in Endpoint
    }
    return Upstream(
        model=model,
        endpoint=endpoint,
        key=key,
        connections=ConnectionPool(origin, config.patience.connect_s),
        breaker=Breaker(settings=config.breaking),
        heads=heads,
    )


def _key(model: Served, environment: Mapping[str, str]) -> str:
    if model.api_key is None:
        return ""
    value = environment.get(model.api_key, "").strip()
    if not value:
        raise GatewayError(
            f"the environment has no {model.api_key}, which {model.name!r} names as its api_key; set it"
        )
    if not (value.isascii() and value.isprintable()):
        raise GatewayError(f"{model.api_key} holds what no header can; correct it")
    return value
