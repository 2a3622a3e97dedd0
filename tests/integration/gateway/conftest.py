"""A gateway of real processes over a provider that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import KeyRequest
from modelyard.gateway.accounts.ledger import Ledger
from modelyard.gateway.accounts.usage import By, Usage, UsageQuery, total_of
from modelyard.runs.yard import open_yard
from modelyard.testing.faulty_provider import RunningProvider, running_provider

PATIENCE_S = 60.0
MODELYARD = (sys.executable, "-m", "modelyard.cli.main")
PRICE = {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 2.0}
#: What the provider serves; `free` has no price, `hasty` little time, `hedged` is asked besides b.
MODELS = ("a", "b", "c", "d", "free", "hasty", "hedged")
#: The key of the upstream; it must be nowhere but in the environment and at the upstream.
UPSTREAM_KEY = "sk-upstream-planted-7f3a"


@dataclass
class Gateway:
    """One that runs."""

    folder: Path
    address: str
    process: subprocess.Popen[str]
    # Of a key that may do everything.
    token: str
    # Without certificates, which take long to load.
    http: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False, timeout=PATIENCE_S))

    def client(self, **more: Any) -> openai.OpenAI:
        """The official one."""
        given = {"api_key": self.token, "max_retries": 0, "timeout": 30, **more}
        http = openai.DefaultHttpxClient(verify=False)
        return openai.OpenAI(base_url=self.address, http_client=http, **given)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(self.address.removesuffix("/v1") + path, headers=headers)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name with these labels."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    def key(self, **wanted: Any) -> str:
        """The token of a new key that the workers know."""
        with KeyStore(self.books) as store:
            _, token = store.create(KeyRequest(**wanted))
        wait_until(lambda: self.knows(token))
        return token

    def knows(self, token: str) -> bool:
        return self.get("/v1/models", authorization=f"Bearer {token}").status_code == 200

    def used(self, token: str, *, requests: int) -> dict[str, Any]:
        """What a key has used, once so many of its requests have ended."""
        query = UsageQuery(by=By.KEY, key=key_id(token))

        def total() -> Usage:
            ledger.fold()
            return total_of(ledger.usage(query))

        with Ledger(self.books) as ledger:
            return dict(wait_until(lambda: t.record() if (t := total()).requests == requests else None))

    @property
    def books(self) -> Path:
        return self.folder / "yard" / "gateway"

    def call(self, *arguments: str) -> Any:
        """What a command of this yard says as JSON."""
        argv = [*MODELYARD, *arguments, "--yard", str(self.folder / "yard"), "--json"]
        return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    def event(self, name: str) -> dict[str, Any]:
        """The next event of this name that it tells."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if (event := json.loads(line))["event"] == name:
                return dict(event)
        raise AssertionError(f"ended without {name}")


def write_yard(folder: Path, provider: RunningProvider, **own: Any) -> Path:
    """All models; for a there is b, and for c and d nobody stands in."""
    pool = [
        {"name": name, "endpoint": provider.base_url, "model": name, "api_key": "PLANTED_KEY",
         **({} if name == "free" else {"price": PRICE})}
        for name in MODELS
    ]  # fmt: skip
    gateway = {"models": {"a": {"fallbacks": ["b"], "timeout_s": 1.0}, "c": {"timeout_s": 1.0},
                          "hasty": {"fallbacks": ["b"], "timeout_s": 0.3},
                          "hedged": {"fallbacks": ["b"], "hedge_after_s": 0.05}},
               "patience": {"deadline_s": 20, "silence_s": 1.0, "connect_s": 1.0},
               "breaker": {"failures": 1000000}, **own}  # fmt: skip
    path = folder / "yard.yaml"
    fresh = folder / ".yard.yaml.new"
    fresh.write_text(yaml.safe_dump({"name": "served", "pool": pool, "gateway": gateway}))
    fresh.replace(path)
    return path


@contextmanager
def running_gateway(folder: Path, yard_file: Path, *options: str) -> Iterator[Gateway]:
    with KeyStore(open_yard(folder / "yard", create=True).root / "gateway") as store:
        _, token = store.create(KeyRequest(name="all"))
    argv = [*MODELYARD, "serve", str(yard_file), "--port", "0", "--json"]
    argv += ["--yard", str(folder / "yard"), *options]
    environment = {**os.environ, "PLANTED_KEY": UPSTREAM_KEY}
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    with process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline() or '{"address": ""}')
            assert ready["address"], (folder / "stderr").read_text()
            made = Gateway(folder, ready["address"], process, token)
            with made.http:
                yield made
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE_S)


def key_id(token: str) -> str:
    """Of the key that a token opens with."""
    return token.split("-")[2]


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.03)
    return value


@pytest.fixture(scope="session")
def shared_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    folder = tmp_path_factory.mktemp("provider")
    options = ("--models", ",".join(MODELS), "--words", "8", "--api-key", UPSTREAM_KEY)
    with running_provider(folder, *options) as running:
        yield running


@pytest.fixture
def provider(shared_provider: RunningProvider) -> RunningProvider:
    """Without faults."""
    shared_provider.script()
    return shared_provider


@pytest.fixture(scope="session")
def gateway(shared_provider: RunningProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, write_yard(folder, shared_provider)) as running:
        yield running


@pytest.fixture(scope="session")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with gateway.client() as made:
        yield made


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    return wait_until
