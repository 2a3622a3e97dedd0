"""Gateways side by side: what each adds to a mock upstream, on one core, in rounds that take turns.

    python benchmarks/gateway.py --peer litellm=PYTHON --peer portkey=FOLDER --peer vllm-router=PYTHON \\
        --peer aiohttp=PYTHON [--parts closed,open,streams,memory,workers] [--rounds 3] [--seconds 3]

The mock upstream is `modelyard.testing.faulty_provider` on core 1, with the load; the gateway has core 0.
Every round starts each gateway in turn, with the upstream alone (`direct`) among them, and ends it. No two
prompts are alike. Closed loop: wrk, one thread. Open loop and streams: a client that sends at fixed instants
and measures from them; what is added is the difference of percentiles from the same load on the upstream in
the same turn. Answers are compared with the upstream's before and after each turn. Cells are medians over
the rounds, with the least and the most.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway_load import Prompts, Seen, closed_loop, open_loop, streams
from gateway_servers import (
    Gateway,
    NotMeasured,
    Place,
    Running,
    free_port,
    known_gateways,
    make_router,
    running,
    upstream_launch,
)

SMALL, LARGE = 120, 8000
WARM_S = 1.0
#: Above this share of its closed-loop throughput a gateway is not asked for a fixed rate.
BEARABLE = 0.9
PACED, PACE_S = "paced-stream", 0.01
DIRECT = "direct"
Measures = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a turn needs."""

    upstream: Running
    folder: Path
    seconds: float
    rates: tuple[float, ...]
    salts: Iterator[int]

    def prompts(self, size: int, **more: Any) -> Prompts:
        """Prompts that were not sent before."""
        return Prompts(salt=f"{more.pop('mark', 'run')}-{next(self.salts)}", size=size, **more)


def closed(bench: Bench, server: Running) -> Measures:
    """Throughput, latency and time of the processor, in a closed loop."""
    found: Measures = {}
    for name, size, connections in (("", SMALL, 32), ("8k ", LARGE, 32), ("one ", SMALL, 1)):
        used = server.cpu_s()
        seen = closed_loop(server, bench.prompts(size), connections, bench.seconds, bench.folder)
        used = server.cpu_s() - used
        found |= {
            f"{name}per_s": seen.per_s, f"{name}p50_ms": seen.p50_ms, f"{name}p99_ms": seen.p99_ms,
            f"{name}cpu_us": 1e6 * used / max(seen.requests, 1), f"{name}failed": seen.bad + seen.broken,
        }  # fmt: skip
    return found


def at_rates(bench: Bench, server: Running, bearable_per_s: float) -> Measures:
    """Latency at fixed rates, and what is added to the upstream's."""
    found: Measures = {}
    for rate in bench.rates:
        if rate > bearable_per_s:
            continue
        direct = open_loop(bench.upstream, bench.prompts(SMALL), rate, bench.seconds)
        seen = open_loop(server, bench.prompts(SMALL), rate, bench.seconds)
        found |= _compared(f"{rate:g} ", seen, direct, first=False)
    return found


def streaming(bench: Bench, server: Running) -> Measures:
    """Time to the first token, of one stream and of 32 with paced events; tokens a second flat out."""
    found: Measures = {}
    for concurrent in (1, 32):
        told = {"stream": True, "tokens": 2 if concurrent == 1 else 32, "mark": PACED}
        direct = streams(bench.upstream, bench.prompts(SMALL, **told), concurrent, bench.seconds)
        seen = streams(server, bench.prompts(SMALL, **told), concurrent, bench.seconds)
        found |= _compared(f"{concurrent} streams ", seen, direct, first=True)
    used = server.cpu_s()
    flat_out = streams(server, bench.prompts(SMALL, stream=True, tokens=200), 32, bench.seconds)
    tokens = 200 * sum(each.whole for each in flat_out.sent)
    found["tokens_per_s"] = tokens / flat_out.seconds
    found["token_cpu_us"] = 1e6 * (server.cpu_s() - used) / max(tokens, 1)
    return found


def _compared(name: str, seen: Seen, direct: Seen, *, first: bool) -> Measures:
    """Percentiles and what they are above the upstream's."""
    found: Measures = {f"{name}failed": seen.failed + direct.failed}
    for percent in (50, 99):
        took = seen.ms(percent, first=first)
        found[f"{name}p{percent}_ms"] = took
        found[f"{name}added_p{percent}_ms"] = took - direct.ms(percent, first=first)
    return found


def check(bench: Bench, server: Running, *, stream: bool) -> str:
    """Why some answers are not what the upstream says, with status 200; empty where they are."""
    for size in (SMALL, LARGE):
        body = json.loads(bench.prompts(size, stream=stream).body(7))
        (status, got), (_, wanted) = server.ask(body), bench.upstream.ask(body)
        if status != 200 or _said(got, stream=stream) != _said(wanted, stream=stream):
            return f"status {status}, {got[:300]!r} instead of {wanted[:300]!r}"
    return ""


def _said(answer: bytes, *, stream: bool) -> tuple[str, int]:
    """Text and completion tokens."""
    if not stream:
        body = json.loads(answer)
        return body["choices"][0]["message"]["content"], body["usage"]["completion_tokens"]
    events = [line.removeprefix(b"data: ") for line in answer.split(b"\n") if line.startswith(b"data: {")]
    bodies = [json.loads(event) for event in events]
    deltas = [each["choices"][0]["delta"] for each in bodies if each["choices"]]
    usage = [each["usage"] for each in bodies if each.get("usage")]
    return "".join(delta.get("content") or "" for delta in deltas), usage[-1]["completion_tokens"]


@contextmanager
def turn(bench: Bench, gateway: Gateway, *, workers: int = 1, cores: set[int]) -> Iterator[Running]:
    """A gateway that runs, was warmed up and answers rightly, before and after."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    place = Place(port=port, upstream=bench.upstream.port, folder=folder, workers=workers)
    with running(gateway.launch(place), port, cores, folder / "gateway.log") as server:
        before = check(bench, server, stream=False)
        closed_loop(server, bench.prompts(SMALL), 32, WARM_S, bench.folder)
        yield server
        if wrong := before or check(bench, server, stream=False):
            raise NotMeasured(wrong)


def one_round(bench: Bench, gateways: Sequence[Gateway | None], parts: Sequence[str]) -> dict[str, Measures]:
    """Each gateway once; None stands for the upstream alone."""
    found: dict[str, Measures] = {}
    for gateway in gateways:
        if gateway is None:
            closed_loop(bench.upstream, bench.prompts(SMALL), 32, WARM_S, bench.folder)
            found[DIRECT] = closed(bench, bench.upstream)
            continue
        try:
            measured = found[gateway.name] = _measured(bench, gateway, parts)
        except NotMeasured as error:
            print(f"  {gateway.name} cannot be measured: {error}", file=sys.stderr)
            continue
        print(f"  {gateway.name}: {measured['per_s']:,.0f}/s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return found


def _measured(bench: Bench, gateway: Gateway, parts: Sequence[str]) -> Measures:
    """One turn of a gateway."""
    with turn(bench, gateway, cores={0}) as server:
        measured = {"boot_s": server.boot_s, **closed(bench, server)}
        if "open" in parts:
            measured |= at_rates(bench, server, BEARABLE * measured["per_s"])
        if "streams" in parts and (wrong := check(bench, server, stream=True)):
            print(f"  {gateway.name} does not stream: {wrong}", file=sys.stderr)
        elif "streams" in parts:
            measured |= streaming(bench, server)
        measured["pss_mib"] = server.memory_mib()[1]
    return measured | {"all failed": sum(v for name, v in measured.items() if name.endswith("failed"))}


def memory(bench: Bench, gateway: Gateway, requests: int, steps: int) -> list[tuple[int, float, float]]:
    """Requests answered, and resident and proportional MiB, before the load and after each step."""
    with turn(bench, gateway, cores={0}) as server:
        done, rows = 0, [(0, *server.memory_mib())]
        while done < requests:
            seen = closed_loop(server, bench.prompts(SMALL), 32, bench.seconds, bench.folder)
            done += seen.requests
            if done >= requests * len(rows) / steps:
                rows.append((done, *server.memory_mib()))
    return rows


def scaling(bench: Bench, gateway: Gateway) -> list[tuple[int, float, float]]:
    """Workers, requests a second and microseconds of the processor, on two cores beside the load."""
    rows = []
    for workers in (1, 2):
        with turn(bench, gateway, workers=workers, cores={0, 1}) as server:
            used = server.cpu_s()
            seen = closed_loop(server, bench.prompts(SMALL), 64, bench.seconds, bench.folder)
            rows.append((workers, seen.per_s, 1e6 * (server.cpu_s() - used) / max(seen.requests, 1)))
    return rows


def cell(rounds: Sequence[Measures], name: str, form: str = ",.0f") -> str:
    """A median with the least and the most."""
    values = [each[name] for each in rounds if name in each]
    if not values:
        return "–"
    middle = f"{statistics.median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


def table(
    rounds: Sequence[dict[str, Measures]], names: Sequence[str], columns: Sequence[tuple[str, str, str]]
) -> None:
    """One row for each gateway; a column is a title, a measure and its form."""
    shown = [c for c in columns if any(c[1] in each.get(n, {}) for each in rounds for n in names)]
    if not shown:
        return
    print("\n| | " + " | ".join(title for title, _, _ in shown) + " |\n|---" + "|---" * len(shown) + "|")
    for name in names:
        of = [each[name] for each in rounds if name in each]
        print(f"| {name} | " + " | ".join(cell(of, measure, form) for _, measure, form in shown) + " |")


CLOSED = (
    ("req/s, 32 connections", "per_s", ",.0f"), ("p50 ms", "p50_ms", ".2f"), ("p99 ms", "p99_ms", ".2f"),
    ("CPU µs a request", "cpu_us", ",.0f"), ("8 KB: req/s", "8k per_s", ",.0f"),
    ("8 KB: CPU µs", "8k cpu_us", ",.0f"), ("1 connection: req/s", "one per_s", ",.0f"),
    ("p50 ms", "one p50_ms", ".3f"), ("start s", "boot_s", ".2f"), ("PSS MiB", "pss_mib", ",.0f"),
    ("failed in all", "all failed", ".0f"),
)  # fmt: skip
STREAMS = (
    ("1 stream: first token p50 ms", "1 streams p50_ms", ".2f"),
    ("added p50", "1 streams added_p50_ms", ".2f"),
    ("added p99", "1 streams added_p99_ms", ".2f"),
    ("32 streams: first token p50 ms", "32 streams p50_ms", ".2f"),
    ("added p50", "32 streams added_p50_ms", ".2f"), ("added p99", "32 streams added_p99_ms", ".2f"),
    ("tokens/s", "tokens_per_s", ",.0f"), ("CPU µs a token", "token_cpu_us", ".1f"),
)  # fmt: skip


def rates_columns(rates: Sequence[float]) -> list[tuple[str, str, str]]:
    """The columns of the open loop."""
    told = (
        ("p50 ms", "p50_ms"),
        ("p99", "p99_ms"),
        ("added p50", "added_p50_ms"),
        ("added p99", "added_p99_ms"),
    )
    return [
        (f"{rate:,g}/s: {title}", f"{rate:g} {measure}", ".2f") for rate in rates for title, measure in told
    ]


def told_by(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--ours", default=sys.executable, metavar="PYTHON", help="empty: without modelyard")
    parser.add_argument("--only", default="", metavar="A,B", help="names of those that are measured")
    parser.add_argument("--parts", default="closed,open,streams")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rates", default="50,100,1000,3000,6000", metavar="A,B")
    parser.add_argument("--memory-requests", type=int, default=1_000_000)
    parser.add_argument("--memory-steps", type=int, default=10)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    told = told_by(arguments)
    parts = told.parts.split(",")
    os.sched_setaffinity(0, {1})
    result: dict[str, Any] = {"options": vars(told) | {"json": None}, "load": [os.getloadavg()]}
    with tempfile.TemporaryDirectory() as made:
        folder, port = Path(made), free_port()
        paths = dict(each.split("=", 1) for each in told.peer)
        router = make_router(folder / "router") if told.ours else ""
        only = told.only.split(",") if told.only else ()
        known = known_gateways(paths, told.ours, router)
        gateways = [gateway for gateway in known if not only or gateway.name in only]
        script = folder / "faults.json"
        paced = {"match": {"marker": PACED}, "fault": "slow_tokens", "wait_s": PACE_S}
        script.write_text(json.dumps({"rules": [paced]}))
        launch = upstream_launch(sys.executable, port, ["--script", str(script)])
        with running(launch, port, {1}, folder / "upstream.log") as upstream:
            bench = Bench(
                upstream=upstream, folder=folder, seconds=told.seconds, salts=itertools.count(1),
                rates=tuple(float(rate) for rate in told.rates.split(",")),
            )  # fmt: skip
            _heading(gateways, told)
            _rounds(bench, gateways, parts, told, result)
            _memory(bench, gateways, parts, told, result)
            _scaling(bench, gateways, parts, result)
    result["load"].append(os.getloadavg())
    first, last = (each[0] for each in result["load"])
    print(f"\nLoad averages: {first:.1f} at the beginning, {last:.1f} at the end.")
    if told.json:
        told.json.write_text(json.dumps(result, indent=1))


def _heading(gateways: Sequence[Gateway], told: argparse.Namespace) -> None:
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split("Copy")[0]
    print(
        f"{wrk.strip()}; Python {platform.python_version()}; {told.rounds} rounds, {told.seconds:g} s a point"
    )
    for gateway in gateways:
        print(f"- {gateway.name} {gateway.version}: {gateway.options}")


def _rounds(
    bench: Bench,
    gateways: Sequence[Gateway],
    parts: Sequence[str],
    told: argparse.Namespace,
    result: dict[str, Any],
) -> None:
    """Interleaved rounds, each beginning with another gateway."""
    if not {"closed", "open", "streams"} & set(parts):
        return
    order: list[Gateway | None] = [None, *gateways]
    rounds = []
    for number in range(told.rounds):
        shift = number % len(order)
        rounds.append(one_round(bench, order[shift:] + order[:shift], parts))
    names = [DIRECT, *(gateway.name for gateway in gateways)]
    table(rounds, names, CLOSED)
    for rate in bench.rates if "open" in parts else ():
        table(rounds, names[1:], rates_columns([rate]))
    if "streams" in parts:
        table(rounds, names[1:], STREAMS)
    result["rounds"] = rounds


def _memory(
    bench: Bench,
    gateways: Sequence[Gateway],
    parts: Sequence[str],
    told: argparse.Namespace,
    result: dict[str, Any],
) -> None:
    if "memory" not in parts:
        return
    result["memory"] = {}
    print("\n| | requests | RSS MiB | PSS MiB |\n|---|---|---|---|")
    for gateway in gateways:
        try:
            rows = memory(bench, gateway, told.memory_requests, told.memory_steps)
        except NotMeasured as error:
            print(f"  {gateway.name} cannot be measured: {error}", file=sys.stderr)
            continue
        result["memory"][gateway.name] = rows
        for done, rss, pss in rows:
            print(f"| {gateway.name} | {done:,} | {rss:.1f} | {pss:.1f} |")


def _scaling(bench: Bench, gateways: Sequence[Gateway], parts: Sequence[str], result: dict[str, Any]) -> None:
    """Only those that have workers."""
    if "workers" not in parts:
        return
    result["workers"] = {}
    print("\n| on two cores, with the load | workers | req/s, 64 connections | CPU µs a request |")
    print("|---|---|---|---|")
    for gateway in gateways:
        if gateway.name not in ("modelyard", "LiteLLM proxy"):
            continue
        try:
            rows = result["workers"][gateway.name] = scaling(bench, gateway)
        except NotMeasured as error:
            print(f"  {gateway.name} cannot be measured: {error}", file=sys.stderr)
            continue
        for workers, per_s, cpu_us in rows:
            print(f"| {gateway.name} | {workers} | {per_s:,.0f} | {cpu_us:,.0f} |")


if __name__ == "__main__":
    main()
