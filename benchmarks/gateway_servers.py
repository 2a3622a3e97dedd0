"""The gateways that benchmarks/gateway.py compares: how each one starts, on which core, and what it uses.

A gateway comes as `NAME=PATH`: the interpreter of an environment that has it, or for Portkey the folder that
holds its node_modules (`node=PATH` says which node runs it). Portkey 1.15.2 answers every stream with 500 on
@hono/node-server 1.13 and later, which npm takes if it is not told; with 1.11.0 and hono 4.9.7 it streams.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MODEL, CLIENT_KEY = "mock", "sk-bench-client"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 120.0
_LITELLM = """\
model_list:
- model_name: mock
  litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:{upstream}/v1", api_key: sk-upstream}}
general_settings: {{master_key: {key}}}
"""
_YARD = """\
name: bench
pool:
- name: mock
  endpoint: "http://127.0.0.1:{upstream}/v1"
  price: {{prompt_usd_per_million: 1.0, completion_usd_per_million: 2.0}}
- name: other
  endpoint: "http://127.0.0.1:{upstream}/v1"
  model: mock
  price: {{prompt_usd_per_million: 3.0, completion_usd_per_million: 6.0}}
"""


class NotMeasured(Exception):  # noqa: N818  (what is said of it)
    """A gateway that does not start, or does not answer rightly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a gateway is to listen and to whom it talks; its files go to `folder`."""

    port: int
    upstream: int
    folder: Path
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a gateway is started."""

    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    # What each request must carry.
    headers: tuple[tuple[str, str], ...] = ()
    # The model that each request names.
    model: str = MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One of those compared."""

    name: str
    version: str
    # In words, for the table.
    options: str
    launch: Callable[[Place], Launch]


def known_gateways(paths: dict[str, str], ours: str, router: str = "") -> list[Gateway]:
    """Those whose paths were given, ours among them; `ours` is an interpreter that has modelyard, or empty.

    With the folder of a router ours comes twice, with and without it.
    """
    node = paths.get("node", "node")
    made = {
        "litellm": _litellm,
        "portkey": lambda folder: _portkey(folder, node),
        "vllm-router": _vllm_router,
        "aiohttp": _aiohttp,
    }
    found = [make(paths[name]) for name, make in made.items() if name in paths]
    own = [_modelyard(ours, each) for each in dict.fromkeys(("", router))] if ours else []
    return found[:2] + own + found[2:]


def _version(python: str, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _litellm(python: str) -> Gateway:
    def launch(place: Place) -> Launch:
        config = place.folder / "litellm.yaml"
        config.write_text(_LITELLM.format(upstream=place.upstream, key=CLIENT_KEY))
        argv = [str(Path(python).with_name("litellm")), "--config", str(config), "--host", "127.0.0.1"]
        argv += ["--port", str(place.port), "--num_workers", str(place.workers), "--telemetry", "False"]
        return Launch(
            argv=tuple(argv),
            environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            headers=(("Authorization", f"Bearer {CLIENT_KEY}"),),
        )

    return Gateway(
        name="LiteLLM proxy",
        version=_version(python, "litellm"),
        options="master key, no database, no callbacks",
        launch=launch,
    )


def _portkey(folder: str, node: str) -> Gateway:
    package = Path(folder, "node_modules/@portkey-ai/gateway")
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def launch(place: Place) -> Launch:
        argv = (node, str(package / "build/start-server.js"), f"--port={place.port}", "--headless")
        host = f"http://127.0.0.1:{place.upstream}/v1"
        headers = (("x-portkey-provider", "openai"), ("x-portkey-custom-host", host))
        return Launch(argv=argv, headers=(*headers, ("Authorization", "Bearer sk-upstream")))

    version, hono = (
        json.loads((each / "package.json").read_text())["version"]
        for each in (package, Path(folder, "node_modules/@hono/node-server"))
    )
    return Gateway(
        name="Portkey gateway", version=f"{version}, @hono/node-server {hono}, node {told}",
        options="headless, no key of its own",
        launch=launch,
    )  # fmt: skip


def _vllm_router(python: str) -> Gateway:
    def launch(place: Place) -> Launch:
        argv = [str(Path(python).with_name("vllm-router")), "--host", "127.0.0.1", "--port", str(place.port)]
        argv += ["--worker-urls", f"http://127.0.0.1:{place.upstream}", "--policy", "round_robin"]
        argv += ["--prometheus-port", str(free_port()), "--prometheus-host", "127.0.0.1"]
        return Launch(argv=tuple(argv))

    return Gateway(
        name="vllm-router",
        version=_version(python, "vllm-router"),
        options="round robin over one worker, no key",
        launch=launch,
    )


def _aiohttp(python: str) -> Gateway:
    def launch(place: Place) -> Launch:
        script = str(Path(__file__).with_name("gateway_peers.py"))
        argv = (python, script, "--port", str(place.port), "--upstream", f"http://127.0.0.1:{place.upstream}")
        return Launch(argv=argv)

    versions = f"{_version(python, 'aiohttp')}, uvloop {_version(python, 'uvloop')}"
    return Gateway(
        name="bare aiohttp", version=versions, options="pass-through and nothing else", launch=launch
    )


def _modelyard(python: str, router: str = "") -> Gateway:
    """Ours; with a router every request is for `auto`, and is routed by its prompt."""
    command = str(Path(python).with_name("modelyard"))

    def launch(place: Place) -> Launch:
        yard, folder = place.folder / "yard.yaml", str(place.folder / ".modelyard")
        yard.write_text(_YARD.format(upstream=place.upstream))
        limits = ("--limit-usd", "1000000/day", "--rpm", "1000000000", "--tpm", "1000000000000")
        created = subprocess.run(
            [command, "keys", "create", *limits, "--json", "--yard", folder],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        argv = [command, "serve", str(yard), "--port", str(place.port), "--workers", str(place.workers)]
        argv += ["--yard", folder, "--auth", "keys", *(("--router", router) if router else ())]
        headers = (("Authorization", f"Bearer {json.loads(created.stdout)['token']}"),)
        return Launch(argv=tuple(argv), headers=headers, model="auto" if router else MODEL)

    return Gateway(
        name="modelyard auto" if router else "modelyard", version=_version(python, "modelyard"),
        options=f"key with limits of spend, requests and tokens, log{', router' if router else ''}",
        launch=launch,
    )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Running:
    """A gateway or upstream that listens."""

    port: int
    pid: int
    launch: Launch
    # From its start until it first answered.
    boot_s: float

    def cpu_s(self) -> float:
        """Seconds of the processor that it and everything it started have used."""
        return sum(_cpu_s(pid) for pid in tree(self.pid))

    def memory_mib(self) -> tuple[float, float]:
        """Resident and proportional memory of it and everything it started."""
        sums = [_rollup(pid) for pid in tree(self.pid)]
        return sum(rss for rss, _ in sums) / 1024, sum(pss for _, pss in sums) / 1024

    def ask(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """One request, by a plain client, under the model's name that this one knows."""
        data = json.dumps({**body, "model": self.launch.model}).encode()
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        headers = {"Content-Type": "application/json", **dict(self.launch.headers)}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as got:
                return got.status, got.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def running(launch: Launch, port: int, cores: set[int], log: Path) -> Iterator[Running]:
    """Start a program on some cores and wait until it answers; it ends afterwards, with all it started."""
    begun = time.monotonic()
    with log.open("ab") as written:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, sorted(cores))), *launch.argv], stdin=subprocess.DEVNULL,
            stdout=written, stderr=written, env={**os.environ, **launch.environment}, process_group=0,
        )  # fmt: skip
    started = Running(port=port, pid=process.pid, launch=launch, boot_s=0.0)
    try:
        _wait(started, process, log)
        started.boot_s = time.monotonic() - begun
        yield started
    finally:
        _end(process)


def _wait(started: Running, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers a chat with 200."""
    deadline = time.monotonic() + _PATIENCE_S
    body = {"messages": [{"role": "user", "content": "ready?"}]}
    told: object = None
    while time.monotonic() < deadline and process.poll() is None:
        try:
            told = started.ask(body)
            if told[0] == 200:
                return
        except OSError as error:
            told = error
        time.sleep(0.02)
    raise NotMeasured(f"{process.args} does not answer: {told!r}; see {log}:\n{log.read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_bytes().rpartition(b") ")[2].split()[1])
        except OSError:
            continue
    found = [root]
    for pid in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _rollup(pid: int) -> tuple[int, int]:
    """Resident and proportional KiB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines[1:])}
    return sizes["Rss"], sizes["Pss"]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def make_router(folder: Path) -> str:
    """A router of the two models that `_YARD` names, fitted on answers that are made up; its folder."""
    from modelyard.routing.answers import Answers
    from modelyard.routing.embedders import load_embedder
    from modelyard.routing.router import Router, RouterOptions

    chance, prompts = np.random.default_rng(0), 400
    answers = Answers(
        models=("mock", "other"), examples=tuple(map(str, range(prompts))),
        errors_mn=(chance.random((2, prompts)) < [[0.4], [0.2]]).astype(float),
        cost_usd_mn=np.repeat([[1e-5], [3e-5]], prompts, axis=1),
    )  # fmt: skip
    texts = [f"What is {i} in the country of {i % 7}, by the river?" for i in range(prompts)]
    Router.fit(answers, texts, load_embedder(), RouterOptions(clusters=10)).save(folder)
    return str(folder)


def upstream_launch(python: str, port: int, options: Sequence[str] = ()) -> Launch:
    """The mock upstream."""
    argv = (python, "-m", "modelyard.testing.faulty_provider", "--port", str(port), *options)
    return Launch(argv=argv)
