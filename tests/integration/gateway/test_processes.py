"""What happens to a gateway's processes and files; whatever it is, requests are answered."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
from tests.integration.gateway.conftest import (
    MODELYARD,
    PATIENCE_S,
    Gateway,
    running_gateway,
    wait_until,
    write_yard,
)

from modelyard.routing.answers import Answers
from modelyard.routing.embedders import load_embedder
from modelyard.routing.fitting import RouterOptions
from modelyard.routing.router import Router
from modelyard.testing.faulty_provider import RunningProvider

MESSAGES: list[Any] = [{"role": "user", "content": "a sum"}]


def ask(client: openai.OpenAI, model: str = "b") -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(model=model, messages=MESSAGES)


def save_router(folder: Path, right: str) -> None:
    """One that finds this model of a and b better, whatever is asked."""
    errors = np.array([[name != right] * 40 for name in "ab"], float)
    answers = Answers(
        models=("a", "b"), examples=tuple(f"e{n}" for n in range(40)), errors_mn=errors,
        cost_usd_mn=np.full((2, 40), 1e-6),
    )  # fmt: skip
    texts = [f"question {n} of many" for n in range(40)]
    Router.fit(answers, texts, load_embedder("hashing"), RouterOptions()).save(folder)


@pytest.fixture(scope="module")
def pair(shared_provider: RunningProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two workers with a router that prefers a."""
    folder = tmp_path_factory.mktemp("pair")
    save_router(folder / "router", "a")
    with running_gateway(
        folder, write_yard(folder, shared_provider, router="router"), "--workers", "2"
    ) as running:
        yield running


@contextmanager
def load_on(gateway: Gateway) -> Iterator[list[object]]:
    """Requests of two clients, some on each connection; what was no answer is told."""
    failures: list[object] = []
    done, asked = threading.Event(), [0] * 2
    body = json.dumps({"model": "auto", "messages": MESSAGES})
    headers = {"authorization": f"Bearer {gateway.token}"}

    def go(number: int) -> None:
        while not done.is_set():
            connection = HTTPConnection(urlsplit(gateway.address).netloc, timeout=PATIENCE_S)
            with closing(connection):
                try:
                    for _ in range(5):
                        time.sleep(0.02)  # the machine is not only theirs
                        connection.request("POST", "/v1/chat/completions", body, headers)
                        answer = connection.getresponse()
                        if "choices" not in json.loads(answer.read()):
                            failures.append(answer.status)
                except (OSError, HTTPException, ValueError) as error:
                    failures.append(error)
            asked[number] += 1

    threads = [threading.Thread(target=go, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    try:
        yield failures
        wait_until(lambda: all(asked))
    finally:
        done.set()
        for thread in threads:
            thread.join()


def workers_of(gateway: Gateway) -> list[int]:
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_nothing_is_lost_while_files_change(pair: Gateway, provider: RunningProvider) -> None:
    with load_on(pair) as failures:
        for n in range(20):
            write_yard(pair.folder, provider, router="router", in_flight=1000 + n)
            pair.process.send_signal(signal.SIGHUP)
            for _ in range(2):
                pair.event("reloaded")
    assert not failures


@pytest.mark.parametrize("fault", ["no document", "a model without an endpoint", "a router that is broken"])
def test_a_faulty_file_changes_nothing(pair: Gateway, provider: RunningProvider, fault: str) -> None:
    path = write_yard(pair.folder, provider, router="router")
    if fault == "no document":
        path.write_text("pool: [")
    elif fault == "a router that is broken":
        broken = pair.folder / "broken"
        broken.mkdir()
        (broken / "router.json").write_text("{}")
        write_yard(pair.folder, provider, router="broken")
    else:
        path.write_text("pool:\n- {name: a, model: a}\n")
    pair.process.send_signal(signal.SIGHUP)
    assert pair.event("refused")["why"]
    with pair.client() as client:
        assert ask(client, "auto").choices
    write_yard(pair.folder, provider, router="router")
    pair.process.send_signal(signal.SIGHUP)
    assert pair.event("reloaded")


def test_a_router_that_is_replaced_decides(
    pair: Gateway, provider: RunningProvider, until: Callable[..., Any]
) -> None:
    def decided() -> set[str]:
        answers = []
        for _ in range(6):
            with pair.client() as client:
                answers.append(ask(client, "auto").model)
        return set(answers)

    assert decided() == {"a"}
    save_router(pair.folder / "router", "b")
    until(lambda: decided() == {"b"})
    save_router(pair.folder / "router", "a")
    until(lambda: decided() == {"a"})


def test_a_worker_that_is_killed_is_replaced_and_others_go_on(
    pair: Gateway, provider: RunningProvider, until: Callable[..., Any]
) -> None:
    victim, other = workers_of(pair)
    os.kill(victim, signal.SIGKILL)
    assert pair.event("worker_died")["status"] == -signal.SIGKILL
    with pair.client(max_retries=5) as client:
        assert ask(client).choices
    pair.event("worker_ready")
    assert other in workers_of(pair)
    assert len(workers_of(pair)) == 2
    with load_on(pair) as failures:
        pass
    assert not failures


def test_a_worker_that_dies_after_a_refusal_comes_back_with_what_was_served(
    pair: Gateway, provider: RunningProvider
) -> None:
    path = write_yard(pair.folder, provider, router="router")
    document = path.read_text()
    path.write_text(document.replace("PLANTED_KEY", "NOT_IN_THE_ENVIRONMENT"))
    assert "NOT_IN_THE_ENVIRONMENT" in path.read_text()
    pair.process.send_signal(signal.SIGHUP)
    assert "NOT_IN_THE_ENVIRONMENT" in pair.event("refused")["why"]
    os.kill(workers_of(pair)[0], signal.SIGKILL)
    pair.event("worker_ready")
    with pair.client(max_retries=5) as client:
        assert ask(client).choices
    path.write_text(document)
    pair.process.send_signal(signal.SIGHUP)
    assert pair.event("reloaded")


def test_two_gateways_cannot_have_one_yard(pair: Gateway) -> None:
    argv = [*MODELYARD, "serve", str(pair.folder / "yard.yaml"), "--port", "0"]
    argv += ["--yard", str(pair.folder / "yard")]
    second = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, "PLANTED_KEY": "k"}, check=False
    )
    assert second.returncode == 1
    assert "another gateway uses it" in second.stderr
    assert pair.get("/readyz").status_code == 200


def test_a_gateway_that_is_told_to_end_finishes_its_streams(
    shared_provider: RunningProvider, provider: RunningProvider, tmp_path: Path
) -> None:
    provider.script({"match": {"model": "b"}, "fault": "slow_tokens", "wait_s": 0.1})
    with (
        running_gateway(tmp_path, write_yard(tmp_path, shared_provider)) as running,
        running.client() as client,
    ):
        with client.chat.completions.create(model="b", messages=MESSAGES, stream=True) as stream:
            chunks = iter(stream)
            next(chunks)
            running.process.send_signal(signal.SIGTERM)
            assert list(chunks)[-1].choices[0].finish_reason == "stop"
        assert running.process.wait(PATIENCE_S) == 0
        assert running.used(running.token, requests=1)["completion_tokens"] == 8
    assert (tmp_path / "stderr").read_text() == ""


def test_without_their_supervisor_workers_end_and_let_the_port_go(
    shared_provider: RunningProvider, provider: RunningProvider, tmp_path: Path, until: Callable[..., Any]
) -> None:
    with running_gateway(tmp_path, write_yard(tmp_path, shared_provider)) as running:
        port = urlsplit(running.address).port
        running.process.kill()
        running.process.wait()

        def is_free() -> bool:
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(("127.0.0.1", port))
                except OSError:
                    return False
            return True

        until(is_free)
