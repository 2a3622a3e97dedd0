"""Several processes over one file of limits, and a planted secret that no file may hold."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from modelyard.gateway.accounts.journal import RequestJournal
from modelyard.gateway.accounts.key_ring import KeyRing
from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import KeyLimits, KeyRequest, VirtualKey, parse_spend_limit
from modelyard.gateway.accounts.lease import Admission
from modelyard.gateway.accounts.ledger import Ledger
from modelyard.gateway.accounts.limiter import Limiter
from modelyard.gateway.accounts.log_settings import LogSettings
from modelyard.gateway.accounts.records import Outcome, RequestRecord
from modelyard.gateway.accounts.sqlite_limits import SqliteLimits
from modelyard.gateway.accounts.usage import UsageQuery

#: Leases until nothing is left, and tells how much it was.
HAMMER = """
import asyncio, sys
from pathlib import Path
from modelyard.gateway.accounts.limits import LeaseRequest, Slot
from modelyard.gateway.accounts.sqlite_limits import SqliteLimits
async def main():
    store, got = SqliteLimits(Path(sys.argv[1])), 0
    request = LeaseRequest(slot=Slot("k:rpm", "total", None), want=3, least=1, limit=1000)
    while amount := (await store.lease(sys.argv[2], request)).amount:
        got += amount
    await store.close()
    print(got)
asyncio.run(main())
"""


def test_two_processes_lease_exactly_the_limit(folder: Path) -> None:
    """They also make the file at the same time."""
    argv = [sys.executable, "-c", HAMMER, str(folder)]
    processes = [subprocess.Popen([*argv, name], stdout=subprocess.PIPE) for name in ("a", "b")]
    got = [int(process.communicate()[0]) for process in processes]
    assert sum(got) == 1000


def test_a_token_is_in_no_file_of_the_gateway(folder: Path) -> None:
    async def serve(token: str) -> VirtualKey:
        journal, store = RequestJournal(folder, "w1"), SqliteLimits(folder)
        with KeyStore(folder) as keys:
            key = KeyRing(keys).find(token.encode(), 0.0)
        assert isinstance(key, VirtualKey)
        limiter = Limiter(store, "w1")
        admission = await limiter.admit(key, 1000, 10)
        assert isinstance(admission, Admission)
        record = RequestRecord(
            request_id="r", worker="w1", started_at=0.0, endpoint="/v1/completions", asked_model="m",
            status=200, outcome=Outcome.OK, stream=False, latency_s=0.0, attempts=1, key=key.id,
        )  # fmt: skip
        journal.append(record)
        limiter.settle(admission, 10, 1)
        await limiter.tick()
        journal.close()
        with Ledger(folder) as ledger:
            await ledger.finish(store, LogSettings(keep_days=None))
            assert ledger.usage(UsageQuery())[0].of == key.id
        await store.close()
        return key

    with KeyStore(folder) as keys:
        limits = KeyLimits(spend=parse_spend_limit("1/day"), rpm=5, tpm=100)
        _, token = keys.create(KeyRequest(limits=limits))
        key = asyncio.run(serve(token))
        files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    secret = token.removeprefix(f"sk-my-{key.id}-").encode()
    assert {"keys.db", "keys.db-wal", "limits.db", "usage.db", "w1-1.parquet"} <= set(files)
    # All that may be shown of it is its end.
    assert [name for name, data in files.items() if secret[:8] in data or secret[-8:] in data] == []
