"""Three real small language models behind real servers: evaluated, profiled, routed, killed ten times.

    python benchmarks/routing_real.py DIR [--kills 10] [--json out.json]

DIR has the three GGUF files that `routing_real_models.py` makes. Each is served by xllamacpp (llama.cpp)
over HTTP on this machine, in a process of its own, one thread each. The questions are real facts and made
sums: capitals (package countryinfo), chemical symbols (periodictable), sums and differences of two or three
digits; half of them `fit`, half `report`, drawn by the seed. What is measured:

* `modelyard evaluate` of the fit half, its process killed at as many random instants as --kills says, and
  resumed; what the servers were asked is counted by a proxy between, which passes everything through;
* `modelyard evaluate` of the report half; `modelyard router fit` on fit, `modelyard router curve` on report;
* what each model is right on, by kind of question.

Needs xllamacpp, countryinfo and periodictable beside modelyard[evaluate,routing].
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

MODELS = ("smollm", "gemma", "sums")
#: Illustrative prices in USD for a million tokens, by size: Gemma-3-270M is twice SmolLM2-135M.
PRICES = {"smollm": 0.01, "gemma": 0.02, "sums": 0.01}
KINDS = ("capital", "symbol", "sum", "difference")
EACH, SEED = 70, 0
#: For the model without a chat template: a few questions before the one.
SHOTS = "Q: What is 3 + 4?\nA: 7\n\nQ: What is the capital of Italy?\nA: Rome\n\nQ: "


def questions() -> list[dict[str, Any]]:
    """The set: as many of each kind, every second for the report."""
    import periodictable
    from countryinfo import all_countries

    chance = random.Random(SEED)
    named = {country.name(): country.capital() for country in all_countries()}
    countries = sorted((str(name), str(capital)) for name, capital in named.items() if name and capital)
    elements = [(element.name, element.symbol) for element in periodictable.elements if element.number > 0]
    pairs = [(chance.randint(10, 499), chance.randint(10, 499)) for _ in range(2 * EACH)]
    asked = {
        "capital": [(f"What is the capital of {n.title()}?", c) for n, c in chance.sample(countries, EACH)],
        "symbol": [(f"What is the chemical symbol of {n}?", s) for n, s in chance.sample(elements, EACH)],
        "sum": [(f"What is {a} + {b}?", str(a + b)) for a, b in pairs[:EACH]],
        "difference": [(f"What is {max(p)} - {min(p)}?", str(max(p) - min(p))) for p in pairs[EACH:]],
    }
    scorers = {"capital": {"scorer": "normalised", "options": {"contains": True}},
               "symbol": {"scorer": "regex", "options": {"pattern": r"\b[A-Z][a-z]?\b(?![ '])"}},
               "sum": {"scorer": "numeric"}, "difference": {"scorer": "numeric"}}  # fmt: skip
    return [
        {"id": f"{kind}-{i}", "prompt": text, "answers": [answer], "group_id": kind,
         "split": "fit" if i % 2 == 0 else "report", **scorers[kind]}
        for kind in KINDS for i, (text, answer) in enumerate(asked[kind])
    ]  # fmt: skip


def serve(path: Path, port: int) -> None:
    """Serve one model until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.port = 1024, 2, port
    params.hostnames = ["127.0.0.1"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cpuparams.poll = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


class Counter(ThreadingHTTPServer):
    """Passes requests on to a server, each Idempotency-Key once: a key that comes again gets what it got."""

    daemon_threads = True

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream = upstream
        self.lock = threading.Lock()
        self.keys: dict[str, threading.Lock] = {}
        self.kept: dict[str, tuple[int, bytes]] = {}
        self.requests = self.generated = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients are killed here."""


class Passing(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Counter

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key, house = self.headers["Idempotency-Key"], self.server
        with house.lock:
            house.requests += 1
            own = house.keys.setdefault(key, threading.Lock())
        with own:
            if key not in house.kept:
                connection = HTTPConnection("127.0.0.1", house.upstream, timeout=300)
                connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                house.kept[key] = (response.status, response.read())
                connection.close()
                with house.lock:
                    house.generated += 1
        status, data = house.kept[key]
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on standard error."""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(folder: Path, name: str) -> Iterator[Counter]:
    """A model behind its server behind the counting proxy."""
    port = free_port()
    argv = [sys.executable, __file__, "--serve", str(folder / f"{name}.gguf"), str(port)]
    with (
        (folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        proxy = Counter(port)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            process.stdin.close()
            process.wait()


def pool(ports: dict[str, int]) -> list[dict[str, Any]]:
    """The pool section: two that chat, one that continues."""
    entries = []
    for name, port in ports.items():
        options: dict[str, Any] = {"temperature": 0, "max_tokens": 32, "seed": SEED, "logprobs": True}
        entry = {
            "name": name, "endpoint": f"http://127.0.0.1:{port}/v1", "parallel": 2, "options": options,
            "price": {"prompt_usd_per_million": PRICES[name], "completion_usd_per_million": 4 * PRICES[name]},
        }  # fmt: skip
        if name == "gemma":
            entry |= {"api": "completions", "template": SHOTS + "{prompt}\nA:"}
            options["stop"] = ["\n"]
        entries.append(entry)
    return entries


def modelyard(work: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command of ours."""
    argv = [sys.executable, "-m", "modelyard.cli.main", *arguments]
    return subprocess.Popen(argv, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def told(work: Path, *arguments: str) -> dict[str, Any]:
    """What a command of ours prints as JSON."""
    process = modelyard(work, *arguments, "--json")
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{arguments}: status {process.returncode}: {said.decode()}")
    return dict(json.loads(said))


def evaluate_killed(work: Path, kills: int) -> dict[str, Any]:
    """Evaluate the fit split, killed at random instants, and resumed to the end."""
    chance, fired, evaluation = random.Random(SEED), 0, ("evaluate", "yard.yaml", "--set", "set.jsonl")
    while fired < kills:
        process = modelyard(work, *evaluation, "--output", "fit")
        try:
            process.wait(timeout=chance.uniform(1.5, 9.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            fired += 1
            continue
        break
    return {"kills": fired, **told(work, *evaluation, "--output", "fit")}


def rates(work: Path, folder: str) -> dict[str, dict[str, float]]:
    """The share of right answers of each model by kind."""
    rows = pq.read_table(work / folder / "results.parquet").to_pandas().query("metric == 'score'")
    table = rows.pivot_table(index="model", columns="group_id", values="value", aggfunc="mean")
    return {str(name): {str(k): round(v, 3) for k, v in row.items()} for name, row in table.iterrows()}


def measure(folder: Path, kills: int) -> dict[str, Any]:
    """Everything, in a folder of its own."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    asked = questions()
    (work / "set.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    with ExitStack() as stack:
        proxies = {name: stack.enter_context(served(folder, name)) for name in MODELS}
        ports = {name: proxy.server_address[1] for name, proxy in proxies.items()}
        (work / "yard.yaml").write_text(json.dumps({"name": "real", "pool": pool(ports)}))
        begun = time.monotonic()
        fit = evaluate_killed(work, kills)
        record: dict[str, Any] = {
            "seconds": round(time.monotonic() - begun, 1),
            "evaluation": fit,
            "proxies": {
                name: {"requests": p.requests, "keys": len(p.kept), "generated": p.generated}
                for name, p in proxies.items()
            },
        }
        told(work, "evaluate", "yard.yaml", "--set", "set.jsonl", "--split", "report", "--output", "report")
        record["fitted"] = told(work, "router", "fit", "--results", "fit", "--output", "router")
        record["curve"] = told(work, "router", "curve", "router", "--results", "report")
        cascade = ("--first", "sums", "--then", "smollm", "--results", "fit", "--held-out", "report")
        record["cascade"] = told(work, "router", "cascade", *cascade)
        two = [option for name in MODELS[:2] for option in ("--model", name)]
        told(work, "evaluate", "yard.yaml", "--set", "set.jsonl", *two, "--output", "two")
        told(work, "router", "fit", "--results", "two", "--output", "grown")
        newcomer = ("sums", "--pool", "yard.yaml", "--set", "set.jsonl", "--validation", "60")
        record["onboarded"] = told(work, "onboard", *newcomer, "--router", "grown")
        record["grown"] = told(work, "router", "curve", "grown", "--results", "report")
    record["right"] = {"fit": rates(work, "fit"), "report": rates(work, "report")}
    return record


def show(record: dict[str, Any], path: Path | None) -> None:
    """Print what was measured as JSON, and write it where a path is given."""
    text = json.dumps(record, indent=2)
    print(text)
    if path:
        path.write_text(text)


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, metavar=("GGUF", "PORT"))
    chosen = parser.parse_args()
    if chosen.serve:
        serve(Path(chosen.serve[0]), int(chosen.serve[1]))
        return
    show(measure(chosen.folder.absolute(), chosen.kills), chosen.json)


if __name__ == "__main__":
    main()
