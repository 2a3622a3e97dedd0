"""A request that was let in, and what it is served with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.gateway.accounts.keys import VirtualKey
from modelyard.gateway.accounts.lease import Admission
from modelyard.gateway.config import GatewayConfig
from modelyard.gateway.exchanges.asked import Asked
from modelyard.gateway.exchanges.choosing import Chooser
from modelyard.gateway.health import RetryBudget
from modelyard.gateway.upstreams import Upstreams

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What requests are served with; replaced as a whole when the configuration changes."""

    config: GatewayConfig
    chooser: Chooser
    upstreams: Upstreams
    retries: RetryBudget


@dataclass(slots=True, kw_only=True)
class Ticket:
    """A request that was let in."""

    id: str
    asked: Asked
    key: VirtualKey | None
    admission: Admission | None
    # Seconds since 1970, and by the loop's clock.
    admitted_at: float
    begun: float
    deadline: float
    # Of the request, that go on to the upstream.
    headers: bytes
    allowed: Collection[str]
    # Its span, where traces are asked for.
    span: Span | None = None
