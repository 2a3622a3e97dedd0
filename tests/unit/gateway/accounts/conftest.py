"""A gateway's folder, keys and records, and a clock that is told the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelyard.gateway.accounts.journal import RequestJournal
from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import KeyLimits, KeyRequest, VirtualKey
from modelyard.gateway.accounts.records import Outcome, RequestRecord, UsageSource

#: 2026-11-26 12:00:00 UTC.
NOON_S = 1_795_694_400.0


@dataclass
class Hands:
    """A clock whose hands a test moves."""

    now_s: float = NOON_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gateway"


@pytest.fixture
def make_key(folder: Path, clock: Hands) -> Callable[..., VirtualKey]:
    """Make a key with these limits in the folder's store."""

    def make(**limits: Any) -> VirtualKey:
        with KeyStore(folder, clock=clock) as store:
            return store.create(KeyRequest(limits=KeyLimits(**limits)))[0]

    return make


@pytest.fixture
def make_record() -> Callable[..., RequestRecord]:
    """A record of a request that went well, but for what is given."""

    def make(request_id: str = "r", **fields: Any) -> RequestRecord:
        given = {
            "request_id": request_id, "worker": "w", "started_at": NOON_S, "endpoint": "/v1/chat/completions",
            "asked_model": "auto", "status": 200, "outcome": Outcome.OK, "stream": False, "latency_s": 0.5,
            "attempts": 1, "key": "k", "served_model": "small", "upstream": "near", "prompt_tokens": 10,
            "completion_tokens": 20, "usage_source": UsageSource.REPORTED, "cost_nano_usd": 1000,
        }  # fmt: skip
        return RequestRecord(**{**given, **fields})

    return make


@pytest.fixture
def write_journal(folder: Path, make_record: Callable[..., RequestRecord]) -> Callable[..., Path]:
    """Write the journal of a worker that has ended, of records with these fields; its last file."""

    def write(worker: str, *records: dict[str, Any], torn: bytes = b"", **settings: Any) -> Path:
        journal = RequestJournal(folder, worker, **settings)
        for number, fields in enumerate(records):
            journal.append(make_record(**{"request_id": f"{worker}-{number}", "worker": worker, **fields}))
        journal.close()
        path = max(folder.glob(f"requests/{worker}.*"))
        with path.open("ab") as file:
            file.write(torn)
        return path

    return write
