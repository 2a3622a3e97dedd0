"""The server over HTTP: OpenAI's forms, its refusals, one generation at a time, and clients that go away."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import count

import httpx2
import pytest
import uvicorn

from modelyard.heads.config import HeadsConfig
from modelyard.heads.decoding.decoder import Decoded, Decoder
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.model import Heads
from modelyard.heads.serving.server import ServerSettings, Surroundings, address_of, bound, make_app
from modelyard.heads.tree import chain
from modelyard.results.engines import Question
from modelyard.results.engines.openai import OpenAISettings
from modelyard.testing.engine_contract import EngineContract

PROMPT = "the owl likes"


@contextmanager
def running(decoder, tokenizer, **settings):
    """The server in a thread of its own; gives a client of its API."""
    numbers = count(1)
    around = Surroundings(clock=lambda: 1_700_000_000.0, below=lambda top: next(numbers) % top)
    app = make_app(decoder, tokenizer, ServerSettings(model="tiny", **settings), around)
    with bound("127.0.0.1", 0) as listening:
        config = uvicorn.Config(app, http="h11", ws="none", log_config=None, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            with httpx2.Client(base_url=address_of(listening), timeout=120) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def decoder(tiny_base_folder):
    from modelyard.heads.base import Base

    base = Base.open(tiny_base_folder)
    config = HeadsConfig(
        heads=2, layers=1, hidden_size=base.hidden_size, vocab_size=base.vocab_size, projection="shared",
        drafted=base.vocab_size, base=base.fingerprint,
    )  # fmt: skip
    return Decoder(base, Heads(config, base.projection_vh).eval().requires_grad_(False), chain(2))


@pytest.fixture(scope="module")
def client(decoder):
    with running(decoder, decoder.base.tokenizer, max_tokens=12) as client:
        yield client


class Slow:
    """Tells a word every few milliseconds until it is let go; notes what was begun, and how it ended."""

    def __init__(self):
        self.begun, self.ended, self.told = [], [], 0
        self.go_on = threading.Event()

    def generate(self, ids, settings, emit=None):
        self.begun.append(list(ids))
        try:
            while not self.go_on.wait(0.005):
                emit("word ")
                self.told += 1
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("done")
        return Decoded(
            tokens=(1, 2), text="word word", finish="length", passes=2, accepted={}, wall_s=0, cpu_s=0
        )


def until(true, within_s=60.0):
    """Wait until a condition holds."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def streamed(client, place, body):
    """The events of a stream, without the last, which says that it ends."""
    with client.stream("POST", place, json={"model": "tiny", **body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_models_and_health(client):
    assert client.get("/models").json()["data"][0]["id"] == "tiny"
    assert client.get("/models/tiny").json()["object"] == "model"
    health = client.get(str(client.base_url).removesuffix("/v1/") + "/health")
    assert health.json() == {"status": "ok", "model": "tiny", "requests": 0}


def test_a_completion_is_what_the_decoder_gives(client, decoder):
    ids = decoder.base.tokenizer.encode(PROMPT)
    wanted = decoder.generate(ids, DecodeSettings(max_new_tokens=9))
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 9, "temperature": 0}
    told = client.post("/completions", json=body).json()
    assert told["object"] == "text_completion" and told["id"].startswith("cmpl-")
    assert told["created"] == 1_700_000_000
    (choice,) = told["choices"]
    assert (choice["text"], choice["finish_reason"]) == (wanted.text, wanted.finish)
    usage = told["usage"]
    assert usage["prompt_tokens"] == len(ids) and usage["completion_tokens"] == len(wanted.tokens)
    assert usage["total_tokens"] == len(ids) + len(wanted.tokens)
    tokens = client.post("/completions", json={**body, "prompt": ids}).json()
    assert tokens["choices"] == told["choices"]


def test_a_stream_holds_the_same_text(client):
    body = {"prompt": PROMPT, "temperature": 0, "stream_options": {"include_usage": True}}
    events = streamed(client, "/completions", body)
    whole = client.post("/completions", json={"model": "tiny", "prompt": PROMPT, "temperature": 0}).json()
    assert "".join(each["choices"][0]["text"] for each in events[:-1]) == whole["choices"][0]["text"]
    assert len(events) > 3 and len({each["id"] for each in events}) == 1
    finishes = [each["choices"][0]["finish_reason"] for each in events[:-1]]
    assert finishes[-1] == whole["choices"][0]["finish_reason"] and set(finishes[:-1]) == {None}
    assert events[-1]["choices"] == [] and events[-1]["usage"] == whole["usage"]


def test_a_conversation_goes_through_the_template(decoder):
    from copy import copy

    tokenizer = copy(decoder.base.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    with running(decoder, tokenizer) as client:
        messages = [
            {"role": "developer", "content": "the owl"},
            {"role": "user", "content": [{"type": "text", "text": "likes"}]},
        ]
        body = {"model": "tiny", "messages": messages, "max_completion_tokens": 6, "temperature": 0}
        told = client.post("/chat/completions", json=body).json()
        wanted = decoder.generate(tokenizer.encode("the owl likes "), DecodeSettings(max_new_tokens=6))
        assert told["object"] == "chat.completion"
        assert told["choices"][0]["message"] == {"role": "assistant", "content": wanted.text}
        events = streamed(client, "/chat/completions", {k: v for k, v in body.items() if k != "model"})
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"
        assert events[0]["object"] == "chat.completion.chunk"
        assert "".join(each["choices"][0]["delta"].get("content", "") for each in events) == wanted.text


def test_stop_strings_end_the_text_before_them(client):
    body = {"model": "tiny", "prompt": PROMPT, "temperature": 0}
    whole = client.post("/completions", json=body).json()["choices"][0]["text"]
    stop = whole[3:5]
    told = client.post("/completions", json={**body, "stop": [stop]}).json()["choices"][0]
    assert told["text"] == whole.split(stop)[0] and told["finish_reason"] == "stop"
    events = streamed(client, "/completions", {"prompt": PROMPT, "temperature": 0, "stop": stop})
    assert "".join(each["choices"][0]["text"] for each in events) == told["text"]


def test_a_seed_gives_the_same_draw_again(client):
    def text(**more):
        body = {"model": "tiny", "prompt": PROMPT, "temperature": 1.5, "top_p": 0.9, **more}
        return client.post("/completions", json=body).json()["choices"][0]["text"]

    assert text(seed=5) == text(seed=5)
    assert len({text(seed=seed) for seed in range(6)}) > 1
    assert len({text() for _ in range(6)}) > 1


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"model": None}, 400, "model"),
        ({"prompt": None}, 400, "prompt"),
        ({"prompt": ["a", "b"]}, 400, "prompt"),
        ({"prompt": [10**6]}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 10_000}, 400, "prompt"),
        ({"max_tokens": True}, 400, "max_tokens"),
        ({"temperature": 3}, 400, "temperature"),
        ({"temperature": "warm"}, 400, "temperature"),
        ({"top_p": -1}, 400, "top_p"),
        ({"seed": 1.5}, 400, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop"),
        ({"stop": ""}, 400, "stop"),
        ({"stream": "yes"}, 400, "stream"),
        ({"stream_options": []}, 400, "stream_options"),
        ({"n": 2}, 400, "n"),
        ({"logprobs": 5}, 400, "logprobs"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"beam_width": 4}, 400, "beam_width"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_cannot_be_answered_is_refused_by_name(client, change, status, param, stream):
    body = {"model": "tiny", "prompt": PROMPT, "stream": stream, **change}
    response = client.post("/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error" and error["message"]


@pytest.mark.parametrize(
    "messages",
    [None, [], "hello", [{"role": "wizard", "content": "a"}], [{"role": "user"}],
     [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]],
)  # fmt: skip
def test_messages_that_are_none_are_refused(client, messages):
    response = client.post("/chat/completions", json={"model": "tiny", "messages": messages})
    assert response.status_code == 400 and response.json()["error"]["param"].startswith("messages")


def test_keys_without_effect_are_passed_over(client):
    body = {"model": "tiny", "prompt": PROMPT, "user": "u1", "n": 1, "logprobs": None, "metadata": {"a": "b"}}
    assert client.post("/completions", json=body).status_code == 200


def test_what_is_no_request_is_refused(client):
    kind = {"content-type": "application/json"}
    assert client.post("/completions", content=b"{", headers=kind).status_code == 400
    assert client.post("/completions", content=b"[1]", headers=kind).status_code == 400
    assert client.post("/completions", content=b"{}").status_code == 415
    assert client.get("/completions").status_code == 405
    missing = client.post("/embeddings", json={})
    assert missing.status_code == 404 and "message" in missing.json()["error"]
    assert client.get("/models/other").status_code == 404


def test_a_body_that_is_too_large_is_refused(decoder):
    with running(decoder, decoder.base.tokenizer, most_body_bytes=1000) as client:
        body = {"model": "tiny", "prompt": "a" * 2000}
        response = client.post("/completions", json=body)
        assert response.status_code == 413 and response.json()["error"]["code"] == "too_large"


def test_a_key_is_asked_for_where_there_is_one(decoder):
    with running(decoder, decoder.base.tokenizer, api_key="s3cret", max_tokens=2) as client:
        assert client.get("/models").status_code == 401
        wrong = client.post("/completions", json={}, headers={"Authorization": "Bearer wrong"})
        assert wrong.status_code == 401 and "s3cret" not in wrong.text
        right = {"Authorization": "Bearer s3cret"}
        assert client.get("/models", headers=right).status_code == 200


def test_one_at_a_time_and_no_more_than_may_wait(decoder):
    slow = Slow()
    with running(slow, decoder.base.tokenizer, most_waiting=1) as client:
        body = {"model": "tiny", "prompt": PROMPT}
        statuses = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(client.post("/completions", json=body).status_code)
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        health = str(client.base_url).removesuffix("/v1/") + "/health"
        until(lambda: client.get(health).json()["requests"] == 2)
        turned_away = client.post("/completions", json=body)
        assert turned_away.status_code == 503 and turned_away.headers["retry-after"] == "1"
        assert turned_away.json()["error"]["type"] == "server_error"
        assert len(slow.begun) == 1
        slow.go_on.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200] and len(slow.begun) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_who_goes_away_ends_the_generation(decoder, stream):
    slow = Slow()
    with running(slow, decoder.base.tokenizer) as client:
        body = json.dumps({"model": "tiny", "prompt": PROMPT, "stream": stream}).encode()
        with _sent(client, body):
            until(lambda: slow.begun)
        until(lambda: slow.ended == ["GivenUp"])
        slow.go_on.set()
        assert client.post("/completions", content=body, headers=_JSON).status_code == 200


def test_who_goes_away_while_waiting_is_never_decoded(decoder):
    slow = Slow()
    with running(slow, decoder.base.tokenizer) as client:
        first = json.dumps({"model": "tiny", "prompt": [5]}).encode()
        second = json.dumps({"model": "tiny", "prompt": [6]}).encode()
        third = json.dumps({"model": "tiny", "prompt": [7]}).encode()
        health = str(client.base_url).removesuffix("/v1/") + "/health"
        with _sent(client, first):
            until(lambda: slow.begun == [[5]])
            with _sent(client, second):
                until(lambda: client.get(health).json()["requests"] == 2)
            for _ in range(5):  # by then the loop has seen that the second is gone
                client.get(health)
        until(lambda: slow.ended == ["GivenUp"])
        slow.go_on.set()
        assert client.post("/completions", content=third, headers=_JSON).status_code == 200
        assert slow.begun == [[5], [7]]


def test_a_decoder_that_fails_is_a_servers_error(decoder):
    class Broken:
        def generate(self, ids, settings, emit=None):
            emit("so far ")
            raise RuntimeError("no memory")

    with running(Broken(), decoder.base.tokenizer) as client:
        body = {"model": "tiny", "prompt": PROMPT}
        whole = client.post("/completions", json=body)
        assert whole.status_code == 500 and "no memory" in whole.json()["error"]["message"]
        with client.stream("POST", "/completions", json={**body, "stream": True}) as response:
            lines = [line for line in response.iter_lines() if line]
        assert "so far" in lines[0] and json.loads(lines[1][6:])["error"]["type"] == "server_error"
        assert len(lines) == 2


_JSON = {"content-type": "application/json"}


@contextmanager
def _sent(client, body):
    """A request over a bare connection, which is closed at the end of the block."""
    url = client.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        yield


class TestAsAnUpstream(EngineContract):
    """The engine `openai` of evaluations, asking this server."""

    @pytest.fixture
    def settings(self, client):
        return OpenAISettings(
            endpoint=str(client.base_url).removesuffix("/"), model="tiny", options={"temperature": 0}
        )

    @pytest.fixture
    def question(self):
        return Question(example_id="q1", prompt=PROMPT)


def test_the_command_prints_its_address_and_ends_at_sigterm(tiny_base_folder):
    program = "from modelyard.cli.heads.serve import command; command()"
    argv = [sys.executable, "-c", program, str(tiny_base_folder), "--port", "0", "--api-key", "TINY_KEY"]
    environment = {**os.environ, "TINY_KEY": "s3cret", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            name, _, address = server.stdout.readline().strip().partition(" at ")
            body = {"model": name, "prompt": PROMPT, "max_tokens": 4}
            headers = {"Authorization": "Bearer s3cret"}
            told = httpx2.post(f"{address}/completions", json=body, headers=headers, timeout=120)
            assert told.status_code == 200 and told.json()["usage"]["completion_tokens"] >= 1
            assert address.startswith("http://127.0.0.1:")
        finally:
            server.send_signal(signal.SIGTERM)
            _, said = server.communicate(timeout=120)
    assert server.returncode == 0 and "Traceback" not in said


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_under_way_when_the_server_ends_is_told_so(decoder, stream):
    slow, said = Slow(), []
    app = make_app(
        slow, decoder.base.tokenizer, ServerSettings(model="tiny"),
        Surroundings(clock=lambda: 0.0, below=lambda top: 1),
    )  # fmt: skip
    with bound("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, http="h11", ws="none", log_config=None))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        url = f"{address_of(listening)}/completions"
        body = {"model": "tiny", "prompt": PROMPT, "stream": stream}
        asking = threading.Thread(target=lambda: said.append(httpx2.post(url, json=body, timeout=120)))
        asking.start()
        until(lambda: slow.told)
        server.should_exit = True
        app.state.line.give_up_all()
        asking.join()
        serving.join()
    assert "the server is ending" in said[0].text
    assert said[0].status_code == (200 if stream else 503)
