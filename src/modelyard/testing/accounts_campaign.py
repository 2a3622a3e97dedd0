"""The kill campaign over a gateway's accounts: `python -m modelyard.testing.accounts_campaign --kills 50`.

Two kinds of trial. In one a supervisor's work is killed: folding, settling and putting away the journals of
workers that died; run again, every sum must be exact. In the other a small gateway is killed, the supervisor
or any of its two workers, while it spends a key's limit: what is recorded may differ from what was spent by
the requests that were in flight in the killed process, and by nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelyard.core.failpoints import GATEWAY_NAMES, VARIABLE
from modelyard.gateway.accounts.journal import RequestJournal, journal_files
from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import KeyLimits, KeyRequest, VirtualKey, parse_spend_limit
from modelyard.gateway.accounts.lease import Admission
from modelyard.gateway.accounts.ledger import Ledger, keep_books
from modelyard.gateway.accounts.limiter import Limiter
from modelyard.gateway.accounts.limits import limit_accounts, slot_of
from modelyard.gateway.accounts.log_settings import LogSettings
from modelyard.gateway.accounts.records import Outcome, RequestRecord
from modelyard.gateway.accounts.sqlite_limits import SqliteLimits
from modelyard.gateway.accounts.usage import Usage, UsageQuery, total_of
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive

#: Those that a worker passes, not who puts away.
WORKER_NAMES = ("gateway.before_let_go",)
FINISH_NAMES = tuple(name for name in GATEWAY_NAMES if name not in WORKER_NAMES)
_NOON_S = 1_795_694_400.0
_DAY_S = 86_400
_WORKERS = 2
#: Requests in flight in one worker of the small gateway.
_FLYING = 4
_MOST_NANO_USD = 2000
_ROLL_BYTES = 20_000
_TICK_S = 0.1
#: A worker that was let do nothing for so long is done.
_PATIENCE_S = 0.6
_LOST_WORKERS = ("dead1", "dead2")
_LOST_REQUESTS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoning:
    """What the files of a gateway say when all is put away."""

    total: Usage
    # By the store of limits, and by the ledger, for the limit of the one key.
    used: int
    booked: int
    # The requests of the log, which may not be there twice.
    logged: Sequence[str]
    dropped: int
    left: Sequence[str]


def run_trial(folder: Path, kill: Kill, seed: int) -> tuple[Survival, list[Broken]]:
    """One kill of the kind that it is for; what happened, and the promises broken."""
    supervisors = kill.failpoint.partition(":")[0] in FINISH_NAMES
    return _finish_trial(folder, kill, seed) if supervisors else _gateway_trial(folder, kill, seed)


def _finish_trial(folder: Path, kill: Kill, seed: int) -> tuple[Survival, list[Broken]]:
    expected = _leave_behind(folder)
    survival = survive(_trial("--finish", folder), kill, seed=seed)
    found = reckon(folder)
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "sums exact": _differ(found.total.nano_usd, expected),
        "requests exact": _differ(found.total.requests, len(_LOST_WORKERS) * _LOST_REQUESTS),
        "settled exactly": _differ((found.used, found.booked), (expected, expected)),
        "logged once": _differ(
            sorted(found.logged), sorted(f"{w}-{n}" for w in _LOST_WORKERS for n in range(_LOST_REQUESTS))
        ),
        "torn lines counted once": _differ(found.dropped, len(_LOST_WORKERS)),
        "nothing left": " ".join(found.left),
    }
    return survival, broken_promises(kill, promises)


def _gateway_trial(folder: Path, kill: Kill, seed: int) -> tuple[Survival, list[Broken]]:
    folder.mkdir(parents=True)
    _make_key(folder, "0.004")
    survival = survive(_trial("--gateway", folder), kill, seed=seed)
    found, spent = reckon(folder), provided(folder)
    lost = len(spent) - found.total.requests
    limit = 4_000_000
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "at most what was in flight is missing": "" if 0 <= lost <= _FLYING else f"{lost} requests",
        "what is missing was spent": _differ(
            0 <= sum(spent) - found.total.nano_usd <= lost * _MOST_NANO_USD, True
        ),
        "settled exactly": _differ(found.used, found.booked),
        "limit held": "" if found.booked <= limit else f"{found.booked} of {limit}",
        "limit used up": "" if found.booked > limit - _MOST_NANO_USD else f"{found.booked} of {limit}",
        "logged once": _differ((len(found.logged), len(set(found.logged))), (found.total.requests,) * 2),
        "nothing left": " ".join(found.left),
    }
    return survival, broken_promises(kill, promises)


def reckon(folder: Path) -> Reckoning:
    """Read everything that was put away."""
    import pyarrow.dataset as ds

    with KeyStore(folder) as keys, Ledger(folder) as ledger:
        [key] = keys.list()
        total, dropped = total_of(ledger.usage(UsageQuery())), ledger.dropped_lines()
        booked = ledger.spent(key, _NOON_S)
    left = [*folder.glob("requests/*"), *folder.glob("log/*/.*")]
    log = folder / "log"
    logged = ds.dataset(log, partitioning="hive").to_table(columns=["request_id"]) if log.exists() else None
    return Reckoning(
        total=total, dropped=dropped, booked=booked, used=asyncio.run(_used(folder, key)),
        logged=logged["request_id"].to_pylist() if logged is not None else (),
        left=[path.name for path in left],
    )  # fmt: skip


def provided(folder: Path) -> list[int]:
    """What the requests of the small gateway really cost, by their provider."""
    return [int(line) for path in folder.glob("provider.*") for line in path.read_text().splitlines()]


def _leave_behind(folder: Path) -> int:
    """The files of workers that died: full ones, one with a torn line, and leases; what they spent."""
    key, spent, chance = _make_key(folder, "1"), 0, random.Random(0)
    for worker in _LOST_WORKERS:
        journal = RequestJournal(folder, worker, roll_bytes=_ROLL_BYTES)
        for number in range(_LOST_REQUESTS):
            cost = chance.randrange(_MOST_NANO_USD)
            spent += cost
            started_s = _NOON_S + _DAY_S * (number % 2)
            journal.append(_record(worker, f"{worker}-{number}", key, cost, started_s))
        journal.close()
        with max(folder.glob(f"requests/{worker}.*")).open("ab") as file:
            file.write(b'{"request_id": "torn')
        asyncio.run(_lease_much(folder, worker, key))
    return spent


async def _lease_much(folder: Path, worker: str, key: VirtualKey) -> None:
    store = SqliteLimits(folder)
    account, period, limit = limit_accounts(key)["usd"]
    await store.hold(worker, {slot_of(account, period, _NOON_S): limit // 3})
    await store.close()


async def _used(folder: Path, key: VirtualKey) -> int:
    store = SqliteLimits(folder)
    account, period, _ = limit_accounts(key)["usd"]
    used = await store.used(slot_of(account, period, _NOON_S))
    await store.close()
    return used


def _make_key(folder: Path, limit_usd: str) -> VirtualKey:
    with KeyStore(folder) as store:
        return store.create(KeyRequest(limits=KeyLimits(spend=parse_spend_limit(limit_usd))))[0]


def _record(worker: str, request_id: str, key: VirtualKey, cost: int, started_s: float) -> RequestRecord:
    return RequestRecord(
        request_id=request_id, worker=worker, started_at=started_s, endpoint="/v1/chat/completions",
        asked_model="auto", status=200, outcome=Outcome.OK, stream=False, latency_s=0.1, attempts=1,
        key=key.id, served_model="small", upstream="near", cost_nano_usd=cost,
    )  # fmt: skip


def _trial(what: str, folder: Path) -> Trial:
    argv = [sys.executable, "-m", "modelyard.testing.accounts_campaign", what, str(folder)]
    return Trial(argv=argv, cwd=folder, environment=dict(os.environ))


def _differ(found: object, expected: object) -> str:
    return "" if found == expected else f"{found} where {expected} was to be"


def _finish(folder: Path) -> None:
    """What a supervisor does each second, once."""
    with Ledger(folder) as ledger:
        keep_books(ledger, lambda: SqliteLimits(folder), LogSettings(keep_days=None))


def _supervise(folder: Path) -> None:
    """A small gateway: workers that are started again when they are killed, until the limit is used up."""
    _finish(folder)
    argv = [sys.executable, "-m", "modelyard.testing.accounts_campaign", "--work", str(folder)]
    # One worker is to die at a failpoint, and those that come after it are not.
    spared = {name: value for name, value in os.environ.items() if name != VARIABLE}
    workers = [subprocess.Popen(argv), *(subprocess.Popen(argv, env=spared) for _ in range(_WORKERS - 1))]
    while workers or any(True for _ in journal_files(folder)):
        time.sleep(_TICK_S)
        _finish(folder)
        running = [worker for worker in workers if worker.poll() is None]
        died = sum(worker.returncode not in (None, 0) for worker in workers)
        workers = running + [subprocess.Popen(argv, env=spared) for _ in range(died)]


def _work(folder: Path) -> None:
    asyncio.run(_working(folder))


async def _working(folder: Path) -> None:
    """A worker that spends what it is let spend, a few requests at a time."""
    worker = f"w{uuid.uuid4().hex[:12]}"
    journal = RequestJournal(folder, worker, roll_bytes=_ROLL_BYTES)
    store = SqliteLimits(folder)
    limiter = Limiter(store, worker)
    with KeyStore(folder) as keys:
        [key] = keys.list()
    bill = os.open(folder / f"provider.{worker}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chance = random.Random(worker)
    loop = asyncio.get_running_loop()
    last_s = loop.time()

    async def request(number: int) -> None:
        nonlocal last_s
        count = 0
        while loop.time() - last_s < _PATIENCE_S:
            got = await limiter.admit(key, _MOST_NANO_USD, 0)
            if not isinstance(got, Admission):
                await asyncio.sleep(0.02)
                continue
            last_s = loop.time()
            cost = chance.randrange(1, _MOST_NANO_USD + 1)
            os.write(bill, f"{cost}\n".encode())
            await asyncio.sleep(0.002)
            count += 1
            journal.append(_record(worker, f"{worker}-{number}-{count}", key, cost, _NOON_S))
            limiter.settle(got, cost, 0)

    async def tick() -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await limiter.tick()

    ticking = asyncio.ensure_future(tick())
    await asyncio.gather(*(request(number) for number in range(_FLYING)))
    ticking.cancel()
    await limiter.close()
    await store.close()
    journal.close()


def main() -> int:
    """Run the campaign, or a part of a trial."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parts = {
        "--finish": _finish,
        "--gateway": _supervise,
        "--work": _work,
    }
    for name in parts:
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    for name, part in parts.items():
        folder = getattr(arguments, name.lstrip("-"))
        if folder is not None:
            part(folder)
            return 0
    kills = [
        *failpoint_kills(only=FINISH_NAMES, later=(1, 2, 3)),
        *failpoint_kills(only=WORKER_NAMES, later=(1,)),
        *random_kills(arguments.kills, within_s=3.0, seed=arguments.seed),
    ]
    return run_campaign(kills, partial(run_trial), seed=arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
