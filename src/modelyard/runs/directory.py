"""A run's directory: what is run, who drives it, and the request to stop.

run.json       what the run is of; written once
plan.json      its steps; written once
manifest.json  where its members stand; valid JSON at every instant
lease.json     who drives it now, until when
lock           held by the one process that drives it
cancel         its presence asks the driver to stop
jobs/<key>/    one folder an attempt
models/<name>/ what the members leave
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from modelyard.core.clock import stamp, utc_now
from modelyard.core.errors import RunBusy, RunMismatch, RunNotFound
from modelyard.core.files import read_json, write_json
from modelyard.core.journal import Draft
from modelyard.core.locks import held
from modelyard.core.processes import boot_id, identity, is_alive
from modelyard.jobs.plan import Plan, plan_from, plan_record
from modelyard.runs.yard import Yard

SCHEMA = "modelyard.run/1"
LEASE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run is of."""

    schema: str
    run: str
    kind: str  # train | up
    yard: str  # the yard's directory
    source: str  # the file that declared it
    plan_digest: str
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """The directory of one run."""

    path: Path
    record: RunRecord

    @property
    def jobs_dir(self) -> Path:
        """One folder for each attempt."""
        return self.path / "jobs"

    @property
    def manifest_path(self) -> Path:
        """Where the members stand."""
        return self.path / "manifest.json"

    @property
    def cancel_path(self) -> Path:
        """Its presence asks the driver, or the watch, to stop."""
        return self.path / "cancel"

    @property
    def watch_lock(self) -> Path:
        """Held by who looks at the run again and again, also while nothing drives it."""
        return self.path / "watch.lock"

    def plan(self) -> Plan:
        """The steps of the run."""
        return plan_from(read_json(self.path / "plan.json"))


def create_run(yard: Yard, path: Path, *, run: str, kind: str, source: str, plan: Plan) -> RunDirectory:
    """Make the run's directory, or open it when it holds the same run already.

    Raises:
        RunMismatch: The directory holds a run of another plan or another yard.
    """
    existing = path / "run.json"
    if existing.exists():
        directory = open_run(path)
        _refuse_other(directory, yard, run, plan)
        return directory
    record = RunRecord(
        schema=SCHEMA,
        run=run,
        kind=kind,
        yard=str(yard.root),
        source=source,
        plan_digest=plan.digest,
        created_at=stamp(utc_now()),
    )
    write_json(path / "plan.json", plan_record(plan))
    yard.journal.append([Draft(kind="run.created", run=run, data={**asdict(record), "dir": str(path)})])
    write_json(existing, asdict(record))
    return RunDirectory(path=path, record=record)


def open_run(path: Path) -> RunDirectory:
    """Open a run's directory. Raises `RunNotFound`."""
    try:
        record = RunRecord(**read_json(path / "run.json"))
    except FileNotFoundError as error:
        raise RunNotFound(
            f"{path}: there is no run here; `modelyard status` lists the runs of a yard"
        ) from error
    except (ValueError, TypeError) as error:
        raise RunNotFound(
            f"{path}/run.json: is not a run's record ({error}); restore it from a backup"
        ) from error
    return RunDirectory(path=path, record=record)


@contextmanager
def drive(directory: RunDirectory) -> Iterator[Lease]:
    """Be the one process that drives the run; an old request to stop is forgotten.

    Raises:
        RunBusy: Another process drives it.
    """
    with drive_folder(directory.path, directory.record.run) as lease:
        directory.cancel_path.unlink(missing_ok=True)
        yield lease


@contextmanager
def drive_folder(path: Path, name: str) -> Iterator[Lease]:
    """Hold the lock and the lease of a folder that exists; raises `RunBusy` as `drive`."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(path / "lock"))
        except BlockingIOError as error:
            holder = read_lease(path).get("holder", "unknown")
            raise RunBusy(
                f"{name}: process {holder.partition(':')[0]} drives this run; "
                "follow it with `modelyard status --follow`, or stop it with `modelyard cancel`"
            ) from error
        lease = Lease(path / "lease.json")
        lease.renew()
        stack.callback(lease.end)
        yield lease


class Lease:
    """The driver's sign of life."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._holder = identity(os.getpid())
        self._renewed = float("-inf")
        self._beat = 0

    def renew(self) -> None:
        """Write the lease anew when a third of it has gone by."""
        if time.monotonic() - self._renewed < LEASE_S / 3:
            return
        self._renewed = time.monotonic()
        self._write(utc_now() + timedelta(seconds=LEASE_S))

    def end(self) -> None:
        """Give the lease back."""
        self._holder = ""
        self._write(utc_now())

    def _write(self, expires: datetime) -> None:
        self._beat += 1
        record = {
            "holder": self._holder,
            "host": socket.gethostname(),
            "boot": boot_id(),
            # of the monotonic clock, which readers of the same boot share
            "monotonic_s": time.monotonic(),
            "beat": self._beat,
            "expires_at": stamp(expires),
        }
        write_json(self._path, record, durable=False)


def read_lease(path: Path) -> dict[str, Any]:
    """The lease as written; empty when there is none."""
    try:
        record = read_json(path / "lease.json")
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_driven(path: Path) -> bool:
    """Whether a living process drives the run; on another host, whether its lease has not ended."""
    lease = read_lease(path)
    if not lease:
        return False
    if lease["host"] == socket.gethostname():
        return is_alive(lease["holder"])  # however long it has been too busy to renew
    return datetime.fromisoformat(lease["expires_at"]) > datetime.now(UTC)


def _refuse_other(directory: RunDirectory, yard: Yard, run: str, plan: Plan) -> None:
    record = directory.record
    if record.yard != str(yard.root):
        raise RunMismatch(f"{directory.path}: belongs to the yard {record.yard}; pass --yard {record.yard}")
    if record.run != run or record.plan_digest != plan.digest:
        raise RunMismatch(
            f"{directory.path}: holds a run of {record.source} as it was on {record.created_at[:19]}, "
            "and the plan has changed since (the file, the interpreter or modelyard); use another run "
            "directory, or `up --fresh`"
        )
