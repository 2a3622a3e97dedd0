"""Thousands of requests to a gateway under each fault of its provider; reloads and kills under load.

    python -m modelyard.testing.gateway_campaign --requests 10000

A pool of two models, of which the provider serves one badly; the other is its fallback. Every client must get
a whole answer or a clear error in time; a fault before the first byte must not be seen at all; and what the
gateway says that was used must be what the provider billed. Two more parts: the files are rewritten under
load, and workers are killed under load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelyard.testing.faulty_provider import RunningProvider, running_provider
from modelyard.testing.gateway_client import Client, Got, Verdict

BAD, GOOD = "shaky", "steady"
#: Of the models, USD for a million tokens of prompt and of answer.
_PRICES = {BAD: (1.0, 2.0), GOOD: (3.0, 6.0)}
_DEADLINE_S = 2.0
#: A client waits so much longer than the deadline before it says that there was no end.
_SLACK_S = 8.0
_START_S = 30.0

_WORDS = ("which", "river", "flows", "through", "the", "old", "town", "of")

#: Faults by name; those of the second kind strike in the middle of a stream, where only telling is left.
BEFORE: Mapping[str, Mapping[str, Any]] = {
    "reset": {"fault": "reset"},
    "no answer": {"fault": "no_answer"},
    "garbage status": {"fault": "garbage_status"},
    "cut headers": {"fault": "cut_headers"},
    "empty body": {"fault": "empty_body"},
    "html body": {"fault": "html_body"},
    "garbage body": {"fault": "garbage_body"},
    "500": {"fault": "status", "code": 500},
    "503": {"fault": "status", "code": 503},
    "429": {"fault": "status", "code": 429, "retry_after": "seconds"},
    "401": {"fault": "status", "code": 401},
    "404": {"fault": "status", "code": 404},
    "hang": {"fault": "hang"},
    "one in three resets": {"fault": "reset", "match": {"model": "shaky", "every": 3}},
}
WITHIN: Mapping[str, Mapping[str, Any]] = {
    "cut, reset": {"fault": "cut"},
    "cut, clean end": {"fault": "cut", "end": "clean"},
    "stall": {"fault": "stall"},
    "error event": {"fault": "stream_error"},
    "one in ten cut": {"fault": "cut", "match": {"model": "shaky", "every": 10}},
}
HARMLESS: Mapping[str, Mapping[str, Any]] = {
    "none": {"fault": "none"},
    "interim answers": {"fault": "interim"},
    "CRLF": {"fault": "crlf"},
    "byte by byte": {"fault": "split"},
    "comments": {"fault": "comments"},
    "merged": {"fault": "merged"},
    "no [DONE]": {"fault": "missing_done"},
    "close after each": {"fault": "close_after"},
    "close when idle": {"fault": "close_idle"},
    "no usage": {"fault": "usage", "usage": "missing"},
    "usage of strings": {"fault": "usage", "usage": "strings"},
}


FAULTS = {**HARMLESS, **BEFORE, **WITHIN}
#: Each request of these takes a second.
_SLOW = ("hang", "stall", "byte by byte")
#: Until what has ended is in the books.
_SETTLED_S = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked at a time."""

    requests: int
    connections: int
    seed: int


@dataclass(slots=True, kw_only=True)
class Yard:
    """A gateway over a provider."""

    folder: Path
    provider: RunningProvider
    address: tuple[str, int] = ("", 0)
    key: str = ""
    # In turn, after which an address is left alone; many: every request meets the fault.
    failures: int = 1_000_000
    process: subprocess.Popen[str] | None = None
    # Workers that are ready now.
    ready: int = 0

    @property
    def file(self) -> Path:
        """Its yard.yaml."""
        return self.folder / "yard.yaml"

    def write(self, number: int = 0) -> None:
        """The yard.yaml, whole; the number changes what need not matter."""
        pool = [
            {"name": name, "endpoint": self.provider.base_url,
             "price": {"prompt_usd_per_million": a, "completion_usd_per_million": b}}
            for name, (a, b) in _PRICES.items()
        ]  # fmt: skip
        gateway = {
            "in_flight": 5000 + number,
            "breaker": {"failures": self.failures},
            "patience": {"deadline_s": _DEADLINE_S, "silence_s": 1.0},
            "models": {BAD: {"fallbacks": [GOOD]}},
        }
        made = self.file.with_suffix(".new")
        made.write_text(json.dumps({"name": "campaign", "pool": pool, "gateway": gateway}))
        made.replace(self.file)

    def modelyard(self, *arguments: str) -> list[str]:
        """A command line of ours for this yard."""
        return [sys.executable, "-m", "modelyard.cli.main", *arguments, "--yard", str(self.folder / "yard")]

    def said_nano_usd(self) -> int:
        """What the gateway says that was used, in billionths of a dollar."""
        told = subprocess.run(
            self.modelyard("usage", "--by", "model", "--json"), capture_output=True, text=True, check=True
        )
        return int(json.loads(told.stdout)["total"]["nano_usd"])

    def billed_nano_usd(self) -> int:
        """What the provider billed."""
        models = self.provider.told("ledger")["models"]
        return sum(
            round(
                (each["prompt_tokens"] * _PRICES[name][0] + each["completion_tokens"] * _PRICES[name][1])
                * 1000
            )
            for name, each in models.items()
        )

    def workers(self) -> list[int]:
        """The processes of the gateway's workers."""
        process = self.process
        if process is None:
            return []
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return [int(child) for child in children]


@contextmanager
def gateway_over(
    provider: RunningProvider, folder: Path, workers: int, options: Sequence[str] = ()
) -> Iterator[Yard]:
    """A running gateway with one key, and options of its command line."""
    yard = Yard(folder=folder, provider=provider)
    yard.write()
    made = subprocess.run(
        yard.modelyard("keys", "create", "--name", "campaign", "--json"),
        capture_output=True,
        text=True,
        check=True,
    )
    yard.key = json.loads(made.stdout)["token"]
    argv = yard.modelyard(
        "serve", str(yard.file), "--port", "0", "--workers", str(workers), "--json", *options
    )
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        yard.process = process
        try:
            started = threading.Event()
            threading.Thread(target=_heard, args=(yard, started), daemon=True).start()
            if not started.wait(_START_S):
                raise TimeoutError("the gateway was not ready in time")
            yield yard
        finally:
            process.terminate()
            process.wait(timeout=_START_S)


def _heard(yard: Yard, started: threading.Event) -> None:
    """What a gateway says of itself, until it ends."""
    process = yard.process
    for line in (process.stdout if process is not None else None) or ():
        event = json.loads(line)
        if event["event"] == "ready":
            address = urlsplit(event["address"])
            yard.address = (str(address.hostname), int(address.port or 0))
            yard.ready = event["workers"]
            started.set()
        yard.ready += {"worker_ready": 1, "worker_died": -1}.get(event["event"], 0)


async def ask_all(yard: Yard, load: Load, label: str) -> list[Got]:
    """So many requests over so many connections, half of them streamed."""
    chance, numbers = random.Random(load.seed), iter(range(load.requests))
    got: list[Got] = []

    async def connection() -> None:
        client = Client(
            host=yard.address[0], port=yard.address[1], key=yard.key, patience_s=_DEADLINE_S + _SLACK_S
        )
        for number in numbers:
            prompt = " ".join(chance.choices(_WORDS, k=8))
            got.append(await client.ask(f"{label}-{number}", BAD, prompt, stream=number % 2 == 0))
        client.close()

    await asyncio.gather(*(connection() for _ in range(load.connections)))
    return got


@dataclass(slots=True, kw_only=True)
class Part:
    """What came of one part of the campaign."""

    name: str
    verdicts: Counter[str] = field(default_factory=Counter)
    by_model: Counter[str] = field(default_factory=Counter)
    # In USD: what the gateway says that was used, and what the provider billed.
    said_usd: float = 0.0
    billed_usd: float = 0.0
    longest_s: float = 0.0
    seconds: float = 0.0
    resent: int = 0
    # What was said of answers that were lost.
    details: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def judge(self, got: Sequence[Got], allowed: Sequence[Verdict]) -> None:
        """Count, and hold every answer against what may be."""
        for one in got:
            self.verdicts[one.verdict] += 1
            self.by_model[one.model] += 1
            self.longest_s = max(self.longest_s, one.seconds)
            self.resent += one.resent
            if one.verdict in (Verdict.WRONG, Verdict.DROPPED):
                self.details[one.detail[:60]] += 1
            if one.verdict not in allowed and len(self.broken) < 5:
                self.broken.append(f"{one.request_id}: {one.verdict} {one.status} {one.detail}")

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "part": self.name,
            "verdicts": dict(self.verdicts),
            "answered by": dict(self.by_model),
            "longest_s": round(self.longest_s, 3),
            "seconds": round(self.seconds, 1),
            "resent": self.resent,
            "lost": dict(self.details),
            "said_usd": round(self.said_usd, 9),
            "billed_usd": round(self.billed_usd, 9),
            "broken": self.broken,
        }


def _part(
    yard: Yard, name: str, work: Callable[[], Coroutine[Any, Any, list[Got]]], allowed: Sequence[Verdict]
) -> Part:
    part, begun = Part(name=name), time.monotonic()
    said, billed = yard.said_nano_usd(), yard.billed_nano_usd()
    part.judge(asyncio.run(work()), allowed)
    part.seconds = time.monotonic() - begun
    time.sleep(_SETTLED_S)
    part.said_usd = (yard.said_nano_usd() - said) * 1e-9
    part.billed_usd = (yard.billed_nano_usd() - billed) * 1e-9
    return part


def faults_part(yard: Yard, load: Load, name: str) -> Part:
    """One fault of the first model."""
    fault = FAULTS[name]
    yard.provider.script({"match": {"model": BAD}, **fault})
    allowed = [Verdict.ANSWERED, Verdict.TOLD] if name in WITHIN else [Verdict.ANSWERED]
    try:
        part = _part(yard, name, lambda: ask_all(yard, load, name.replace(" ", "_")), allowed)
    finally:
        yard.provider.script()
    if name in HARMLESS and fault["fault"] != "usage" and part.said_usd != part.billed_usd:
        part.broken.append(f"{part.said_usd} USD is said, {part.billed_usd} was billed")
    return part


def reload_part(yard: Yard, load: Load, reloads: int) -> Part:
    """The files are rewritten while requests run; none may notice."""

    async def work() -> list[Got]:
        asking = asyncio.ensure_future(ask_all(yard, load, "reload"))
        for number in range(reloads):
            await asyncio.sleep(0.05)
            yard.write(number + 1)
            if yard.process is not None:
                yard.process.send_signal(signal.SIGHUP)
        return await asking

    return _part(yard, f"{reloads} reloads", work, [Verdict.ANSWERED])


def kills_part(yard: Yard, load: Load, kills: int) -> Part:
    """Workers die while requests run: what was in flight is dropped, nothing else."""
    chance, killed = random.Random(load.seed), 0

    async def killing() -> None:
        nonlocal killed
        while killed < kills:
            await asyncio.sleep(chance.uniform(0.3, 0.9))
            workers = yard.workers()
            if yard.ready == len(workers) > 1:  # one that is left can take over
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1

    async def work() -> list[Got]:
        killer, got = asyncio.ensure_future(killing()), list[Got]()
        while not killer.done():
            got += await ask_all(yard, load, f"kills-{len(got)}")
        return got

    part = _part(yard, "worker kills", work, [Verdict.ANSWERED, Verdict.DROPPED, Verdict.WRONG])
    part.name = f"{killed} worker kills"
    lost = part.verdicts[Verdict.DROPPED] + part.verdicts[Verdict.WRONG] + part.resent
    in_flight = killed * load.connections
    if lost > in_flight:
        part.broken.append(f"{lost} answers were lost by {killed} kills of {load.connections} connections")
    dearest = 3 * part.billed_usd / max(1, part.verdicts.total())
    if abs(part.said_usd - part.billed_usd) > dearest * in_flight:
        part.broken.append(f"{part.said_usd} USD is said, {part.billed_usd} was billed")
    return part


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=10_000, help="under each fault")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20, help="of workers")
    parser.add_argument("--faults", default="", help="names, separated by semicolons; all without it")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    load = Load(requests=told.requests, connections=told.connections, seed=told.seed)
    slow = replace(load, requests=max(1, told.requests // 20))
    chosen = [name for name in told.faults.split(";") if name] or list(FAULTS)
    parts: list[Part] = []
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-gateway-") as root,
        running_provider(Path(root), "--ledger-batch", "1") as provider,
        gateway_over(provider, Path(root), told.workers) as yard,
    ):
        for name in chosen:
            parts.append(faults_part(yard, slow if name in _SLOW else load, name))
            sys.stderr.write(f"{json.dumps(parts[-1].record())}\n")
        if told.reloads:
            parts.append(reload_part(yard, load, told.reloads))
        if told.kills:
            parts.append(kills_part(yard, load, told.kills))
    sys.stdout.write(json.dumps({"parts": [part.record() for part in parts]}, indent=1) + "\n")
    return 1 if any(part.broken for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main())
