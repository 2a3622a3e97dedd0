"""Whether somebody drives a run: running, stalled, lost, or at rest; judged by the reader.

A lease is what the driver says of itself. On the machine and boot where it was written the reader needs no
clock of the writer's: the process with that full name lives or does not, the kernel knows whether it is
stopped, and time since the last beat is that of the monotonic clock, which nobody can set. From another
machine two readings of the beat, apart by the reader's own clock, tell; one alone has only the wall clocks.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, utc_now
from modelyard.core.processes import boot_id, is_alive, is_stopped
from modelyard.runs.directory import LEASE_S, read_lease


class Life(StrEnum):
    """What a reader may say of a run's driver."""

    RUNNING = "running"
    # It is there, and does nothing.
    STALLED = "stalled"
    # It is gone without having given its lease back.
    LOST = "lost"
    # Nobody drives the run, and nobody should.
    IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """The judgement and what it rests on."""

    life: Life
    holder: str
    host: str
    # Since the last beat that the reader knows of; None where it cannot tell.
    silent_s: float | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who judges: its machine, boot and clocks; the defaults are those of this process."""

    host: str
    boot: str
    clock: Clock = utc_now
    monotonic: Callable[[], float] = time.monotonic

    @staticmethod
    def here() -> Reader:
        """The reader in this process."""
        return Reader(host=socket.gethostname(), boot=boot_id())


def liveness(
    path: Path, reader: Reader | None = None, *, earlier: Mapping[str, Any] | None = None
) -> Liveness:
    """Judge the lease in a run's directory.

    Args:
        path: The run's directory.
        reader: Who judges.
        earlier: The lease as this reader read it at least a lease's time ago; with it a lease of another
            machine is judged without any clock of the writer's.
    """
    reader = reader or Reader.here()
    lease = read_lease(path)
    holder, host = str(lease.get("holder", "")), str(lease.get("host", ""))
    if not holder:
        why = "nobody holds the lease"
        return Liveness(life=Life.IDLE, holder="", host=host, silent_s=None, why=why)
    try:
        life, silent, why = (
            _same_host(lease, reader) if host == reader.host else _elsewhere(lease, reader, earlier)
        )
    except (KeyError, ValueError, TypeError):
        life, silent, why = Life.LOST, None, "the lease is not as any driver writes it"
    return Liveness(life=life, holder=holder, host=host, silent_s=silent, why=why)


def _same_host(lease: Mapping[str, Any], reader: Reader) -> tuple[Life, float | None, str]:
    holder, boot = str(lease["holder"]), str(lease.get("boot", ""))
    if boot and boot != reader.boot:
        return Life.LOST, None, "the machine was started anew since"
    if not is_alive(holder):
        return Life.LOST, None, f"process {holder.partition(':')[0]} is gone"
    silent = max(0.0, reader.monotonic() - float(lease["monotonic_s"])) if "monotonic_s" in lease else None
    if is_stopped(holder):
        return Life.STALLED, silent, f"process {holder.partition(':')[0]} is stopped"
    if silent is not None and silent > LEASE_S:
        return Life.STALLED, silent, f"no sign of life for {silent:.0f} s"
    return Life.RUNNING, silent, "its process lives and renews the lease"


def _elsewhere(
    lease: Mapping[str, Any], reader: Reader, earlier: Mapping[str, Any] | None
) -> tuple[Life, float | None, str]:
    named = ("holder", "host", "beat")
    if earlier is not None:
        if [earlier.get(name) for name in named] != [lease.get(name) for name in named]:
            return Life.RUNNING, 0.0, "the lease was renewed while it was watched"
        return Life.LOST, LEASE_S, f"the lease was not renewed while it was watched for {LEASE_S:.0f} s"
    left = (datetime.fromisoformat(str(lease["expires_at"])) - reader.clock()).total_seconds()
    if left > LEASE_S:
        return (
            Life.STALLED,
            None,
            "the lease ends later than any does: a clock is wrong; watch the run to tell",
        )
    if left < 0:
        return Life.LOST, LEASE_S - left, f"the lease ended {-left:.0f} s ago by this machine's clock"
    return Life.RUNNING, max(0.0, LEASE_S - left), "the lease has not ended by this machine's clock"
