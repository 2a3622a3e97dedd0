"""What supervisor and worker say to one another: lines of JSON on a pair of sockets.

The end of the line is a message, too: a worker whose supervisor has gone finishes what it has and ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelyard.core.files import read_json, write_json
from modelyard.gateway.accounts.limits import LimitStore
from modelyard.gateway.config import GatewayConfig

READY, RELOADED, REFUSED = "ready", "reloaded", "refused"
RELOAD, DRAIN = "reload", "drain"
#: Of the listening socket and the line in a worker.
LISTEN_VARIABLE, CONTROL_VARIABLE = "MODELYARD_GATEWAY_LISTEN", "MODELYARD_GATEWAY_CONTROL"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """All that a worker is told when it begins, and again when something changes."""

    config: GatewayConfig
    # Where keys, journals and counts are.
    folder: Path
    keys_required: bool
    # Where limits are shared over machines; None: in the folder.
    redis: str | None = None
    # Files of a certificate and its key; without them no TLS.
    certificate: str | None = None
    certificate_key: str | None = None
    # Where traces are sent, by OTLP over HTTP.
    traces: str | None = None

    def write(self, path: Path) -> None:
        """Write it whole."""
        write_json(path, {**asdict(self), "config": self.config.to_json(), "folder": str(self.folder)})

    @classmethod
    def read(cls, path: Path) -> WorkerSpec:
        """As it was written."""
        record = read_json(path)
        return cls(
            **{
                **record,
                "config": GatewayConfig.from_json(record["config"]),
                "folder": Path(record["folder"]),
            }
        )


def open_limits(folder: Path, redis: str | None) -> LimitStore:
    """Where limits are shared: in the gateway's folder, or in a Redis for gateways on several machines."""
    if redis is None:
        from modelyard.gateway.accounts.sqlite_limits import SqliteLimits

        return SqliteLimits(folder)
    from modelyard.gateway.accounts.redis_limits import RedisLimits

    return RedisLimits(redis)


def line(message: str, **more: Any) -> bytes:
    """One message."""
    return json.dumps({"say": message, **more}).encode() + b"\n"


def read_line(data: bytes) -> dict[str, Any]:
    """A message; one that cannot be read says nothing."""
    try:
        record = json.loads(data)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def handed_over(environment: Mapping[str, str]) -> tuple[int, int]:
    """The descriptors of the listening socket and of the line."""
    return int(environment[LISTEN_VARIABLE]), int(environment[CONTROL_VARIABLE])


def new_name(number: int) -> str:
    """The name of one incarnation of a worker; it is used once."""
    return f"w{number}-{os.urandom(5).hex()}"
