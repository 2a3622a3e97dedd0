"""What each fault of the provider does on the wire, seen through a raw socket or the official client."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import openai
import pytest

from modelyard.core.errors import DocumentError
from modelyard.testing.faulty_provider import RunningProvider, running_provider
from modelyard.testing.provider.faults import AT_ACCEPT, FAULTS, KILLED
from modelyard.testing.provider.server import script_of

CHAT = {"model": "a", "messages": [{"role": "user", "content": "three plain words"}]}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
PATIENCE_S = 60.0
SILENCE_S = 0.2
#: How the server's side of a connection ended.
FIN, RST, SILENT = "fin", "rst", "silent"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    folder = tmp_path_factory.mktemp("provider")
    with running_provider(folder, "--models", "a,b", "--words", "8", "--record", "1") as running:
        yield running


@pytest.fixture
def provider(shared: RunningProvider) -> RunningProvider:
    """The one that this file's tests share, with no rule in force."""
    shared.script()
    return shared


@pytest.fixture
def client(provider: RunningProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.base_url, api_key="sk-any", max_retries=0, timeout=60) as made:
        yield made


def request(body: dict[str, Any] | bytes, *, path: str = "/v1/chat/completions", headers: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(data)}\r\n\r\n".encode() + data


def ask(provider: RunningProvider, body: dict[str, Any], *, patience_s: float = 5.0) -> tuple[bytes, str]:
    """All bytes that a request for one answer gets, and how the connection ended."""
    with socket.create_connection(("127.0.0.1", provider.port), timeout=PATIENCE_S) as connection:
        connection.sendall(request(body, headers="Connection: close\r\n"))
        return read_all(connection, patience_s=patience_s)


def read_all(connection: socket.socket, *, patience_s: float) -> tuple[bytes, str]:
    connection.settimeout(patience_s)
    got = b""
    while True:
        try:
            part = connection.recv(1 << 16)
        except ConnectionResetError:
            return got, RST
        except TimeoutError:
            return got, SILENT
        if not part:
            return got, FIN
        got += part


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body as they stand on the wire."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


def dechunked(body: bytes) -> tuple[bytes, list[int], bool]:
    """The payload of chunks, their sizes, and whether the last chunk was there."""
    payload, sizes = b"", []
    while body:
        size, _, body = body.partition(b"\r\n")
        sizes.append(int(size, 16))
        if not sizes[-1]:
            return payload, sizes[:-1], body == b"\r\n"
        payload, body = payload + body[: sizes[-1]], body[sizes[-1] + 2 :]
    return payload, sizes, False


def events(payload: bytes) -> list[str]:
    lines = payload.replace(b"\r\n", b"\n").split(b"\n")
    return [line.removeprefix(b"data: ").decode() for line in lines if line.startswith(b"data: ")]


def last_line(provider: RunningProvider) -> dict[str, Any]:
    return provider.billed()[-1]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


# without faults


def test_an_answer_follows_from_the_prompt_and_is_billed(client, provider):
    first, again = (
        client.chat.completions.create(**CHAT, extra_headers={"x-request-id": "r7"}) for _ in "ab"
    )
    other = client.chat.completions.create(model="b", messages=CHAT["messages"])
    text = first.choices[0].message.content
    assert text == again.choices[0].message.content != other.choices[0].message.content
    assert len(text.split()) == first.usage.completion_tokens == 8
    assert first.usage.prompt_tokens == 3 and first.usage.total_tokens == 11
    assert first.choices[0].finish_reason == "stop"
    line = provider.billed()[-2]
    assert (line["id"], line["model"], line["billed"], line["client_gone"]) == ("r7", "a", True, False)
    assert (line["prompt_tokens"], line["completion_tokens"], line["status"]) == (3, 8, 200)


def test_a_stream_says_what_the_whole_answer_says(client, provider):
    whole = client.chat.completions.create(**CHAT, max_tokens=5)
    chunks = list(client.chat.completions.create(**STREAM, max_tokens=5))
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert last_line(provider)["completion_tokens"] == 5 and last_line(provider)["stream"]
    bare = client.chat.completions.create(**{**STREAM, "stream_options": {}})
    assert all(c.choices and c.usage is None for c in bare)


def test_the_wire_of_a_stream(provider):
    answer, end = ask(provider, STREAM)
    status, headers, body = split(answer)
    payload, sizes, whole = dechunked(body)
    told = events(payload)
    assert (status, end, whole) == (200, FIN, True)
    assert (
        headers["content-type"].startswith("text/event-stream") and headers["transfer-encoding"] == "chunked"
    )
    assert told[-1] == "[DONE]" and len(told) == len(sizes) == 1 + 8 + 1 + 1 + 1


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called(client, stream):
    made = client.chat.completions.create(**CHAT, tools=[TOOL], stream=stream)
    if stream:
        deltas = [c.choices[0] for c in made]
        assert deltas[0].delta.tool_calls[0].function.name == "weather"
        arguments = "".join(
            call.function.arguments for each in deltas for call in each.delta.tool_calls or ()
        )
        finish = deltas[-1].finish_reason
    else:
        [choice] = made.choices
        [call] = choice.message.tool_calls
        assert call.function.name == "weather" and choice.message.content is None
        arguments, finish = call.function.arguments, choice.finish_reason
    assert finish == "tool_calls"
    assert json.loads(arguments)["days"] == 7


def test_a_tool_that_is_not_to_be_called(client):
    made = client.chat.completions.create(**CHAT, tools=[TOOL], tool_choice="none")
    assert made.choices[0].message.tool_calls is None


def test_json_mode(client):
    made = client.chat.completions.create(**CHAT, response_format={"type": "json_object"})
    assert json.loads(made.choices[0].message.content)["words"] == 2
    assert made.usage.completion_tokens == len(made.choices[0].message.content.split())


def test_completions_and_the_words_that_a_prompt_wants(client):
    made = client.completions.create(model="a", prompt="give words:30 now")
    assert made.usage.completion_tokens == len(made.choices[0].text.split()) == 30
    streamed = client.completions.create(model="a", prompt="give words:30 now", stream=True)
    assert "".join(c.choices[0].text for c in streamed) == made.choices[0].text
    assert client.completions.create(model="a", prompt=[5, 6, 7]).usage.prompt_tokens == 3


def test_embeddings_as_numbers_and_as_base64(client):
    given = {"model": "a", "input": ["one two", "three"], "dimensions": 5}
    plain = client.embeddings.create(**given, encoding_format="float")
    packed = client.embeddings.with_raw_response.create(**given, encoding_format="base64")
    unpacked = [
        list(struct.unpack("<5f", base64.b64decode(each["embedding"])))
        for each in json.loads(packed.text)["data"]
    ]
    assert [each.embedding for each in plain.data] == unpacked and unpacked[0] != unpacked[1]
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == 3


def test_models(client, provider):
    assert [model.id for model in client.models.list()] == ["a", "b"]
    assert client.models.retrieve("b").id == "b"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("c")
    with urllib.request.urlopen(f"http://127.0.0.1:{provider.port}/health", timeout=PATIENCE_S) as got:
        assert got.status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400), (b"[]", 400), ({"messages": [{"content": "x"}]}, 400), ({"model": "a"}, 400),
        ({**CHAT, "max_tokens": 0}, 400), ({**CHAT, "model": "z"}, 404),
        ({"model": "a", "messages": [{"content": 5}]}, 400), ({"model": "a", "messages": [7]}, 400),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_answered(provider, body, status):
    with socket.create_connection(("127.0.0.1", provider.port)) as connection:
        connection.sendall(request(body, headers="Connection: close\r\n"))
        answer, _ = read_all(connection, patience_s=PATIENCE_S)
    told, _, data = split(answer)
    assert told == status and json.loads(data)["error"]["message"]


def test_what_is_not_http_is_answered_and_the_server_stays(provider):
    with socket.create_connection(("127.0.0.1", provider.port)) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer, end = read_all(connection, patience_s=PATIENCE_S)
    assert split(answer)[0] == 400 and end == FIN
    assert split(ask(provider, CHAT)[0])[0] == 200


def test_bytes_that_are_damaged_do_it_no_harm(provider):
    chance = random.Random(11)
    whole = request({**STREAM, "tools": [TOOL]}, headers="Connection: close\r\n")
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with socket.create_connection(("127.0.0.1", provider.port)) as connection:
            connection.sendall(damaged[: chance.randint(1, len(damaged))])
            connection.shutdown(socket.SHUT_WR)
            read_all(connection, patience_s=PATIENCE_S)
    assert split(ask(provider, CHAT)[0])[0] == 200
    wait_for(lambda: provider.told("stats")["connections_open"] == 0)


def test_requests_in_one_write_are_answered_in_their_order(provider):
    provider.script({"match": {"marker": "slow"}, "fault": "slow_first_byte", "wait_s": 0.05})
    slow = {"model": "a", "messages": [{"role": "user", "content": "slow one"}]}
    with socket.create_connection(("127.0.0.1", provider.port)) as connection:
        connection.sendall(request(slow) + request(CHAT) + request(STREAM, headers="Connection: close\r\n"))
        answer, _ = read_all(connection, patience_s=PATIENCE_S)
    assert [part.split(b'"', 1)[0] for part in answer.split(b'"prompt_tokens":')[1:]] == [b"2,", b"3,", b"3,"]


def test_what_the_provider_was_sent_can_be_looked_at(client, provider):
    client.chat.completions.create(**CHAT)
    [seen] = provider.told("requests")
    assert seen["headers"]["authorization"] == "Bearer sk-any" and json.loads(seen["body"]) == CHAT


def test_a_client_that_goes_away_pays_what_was_generated(client, provider):
    provider.script({"fault": "stall", "after": 4})
    before = provider.told("stats")["cancelled_streams"]
    stream = client.chat.completions.create(**STREAM)
    for _ in range(4):
        next(stream)
    assert provider.told("stats")["under_way"] == 1
    stream.close()
    wait_for(lambda: provider.told("stats")["cancelled_streams"] == before + 1)
    line = last_line(provider)
    # the first event opens the message, the other three bring a word each
    assert (line["client_gone"], line["completion_tokens"], line["prompt_tokens"]) == (True, 3, 3)


# faults, by name: what the wire shows


def test_before_an_answer(provider):
    for fault, got, end in (
        ({"fault": "reset"}, b"", RST),
        ({"fault": "no_answer"}, b"", FIN),
        ({"fault": "hang"}, b"", SILENT),
        ({"fault": "garbage_status"}, b"HTTP/9.9 abc what\r\n\r\n", FIN),
    ):
        provider.script(fault)
        assert ask(provider, CHAT, patience_s=SILENCE_S if end == SILENT else PATIENCE_S) == (got, end)
        wait_for(lambda fault=fault: last_line(provider)["fault"] == fault["fault"])
        assert not last_line(provider)["billed"]


@pytest.mark.parametrize(("end", "seen"), [("reset", RST), ("fin", FIN)])
def test_headers_that_are_cut(provider, end, seen):
    provider.script({"fault": "cut_headers", "end": end})
    answer, ended = ask(provider, CHAT)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\n\r\n" not in answer and ended == seen


def test_the_first_byte_comes_late(provider):
    provider.script({"fault": "slow_first_byte", "wait_s": 0.3})
    begun = time.monotonic()
    answer, _ = ask(provider, CHAT)
    assert time.monotonic() - begun >= 0.29 and split(answer)[0] == 200


def test_interim_responses(provider):
    provider.script({"fault": "interim"})
    answer, _ = ask(provider, CHAT)
    statuses = [part.split()[0] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"103", b"102", b"200"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError), (429, openai.RateLimitError), (500, openai.InternalServerError),
        (502, openai.InternalServerError), (503, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)  # fmt: skip
def test_statuses_with_an_error_body(client, provider, code, error):
    provider.script({"fault": "status", "code": code, "message": "no", "error_code": "why"})
    with pytest.raises(error) as raised:
        client.chat.completions.create(**CHAT)
    assert raised.value.status_code == code and raised.value.code == "why"
    assert last_line(provider)["status"] == code and not last_line(provider)["billed"]


def test_retry_after_in_its_forms(provider):
    told = {}
    for form in ("none", "seconds", "date"):
        provider.script({"fault": "status", "code": 429, "retry_after": form, "retry_after_s": 7})
        told[form] = split(ask(provider, CHAT)[0])[1].get("retry-after")
    assert told["none"] is None and told["seconds"] == "7"
    assert 0 < parsedate_to_datetime(told["date"]).timestamp() - time.time() <= 7


@pytest.mark.parametrize(
    ("fault", "kind", "body"),
    [
        ({"fault": "empty_body"}, "application/json", b""),
        ({"fault": "html_body"}, "text/html", b"<!doctype html>"),
        ({"fault": "status", "code": 502, "body": "html"}, "text/html", b"<!doctype html>"),
        ({"fault": "status", "code": 500, "body": "empty"}, "application/json", b""),
    ],
)
def test_bodies_that_are_no_json(provider, fault, kind, body):
    provider.script(fault)
    status, headers, got = split(ask(provider, CHAT)[0])
    assert (status, headers["content-type"]) == (fault.get("code", 200), kind)
    assert got.startswith(body) and int(headers["content-length"]) == len(got)


def test_a_garbage_body_is_billed(provider):
    provider.script({"fault": "garbage_body"})
    status, headers, body = split(ask(provider, CHAT)[0])
    assert status == 200 and headers["content-type"] == "application/json"
    with pytest.raises(ValueError):
        json.loads(body)
    assert last_line(provider)["billed"]


@pytest.mark.parametrize(("end", "seen"), [("reset", RST), ("fin", FIN), ("clean", FIN)])
def test_a_body_that_is_shorter_than_its_length(provider, end, seen):
    provider.script({"fault": "cut", "end": end})
    answer, ended = ask(provider, CHAT)
    _, headers, body = split(answer)
    assert 0 < len(body) < int(headers["content-length"]) and ended == seen
    assert last_line(provider)["completion_tokens"] == 8


@pytest.mark.parametrize(
    ("end", "seen", "closed"), [("reset", RST, False), ("fin", FIN, False), ("clean", FIN, True)]
)
def test_a_stream_that_is_cut(provider, end, seen, closed):
    provider.script({"fault": "cut", "after": 3, "end": end})
    answer, ended = ask(provider, STREAM)
    payload, _, whole = dechunked(split(answer)[2])
    told = events(payload)
    assert (len(told), ended, whole) == (3, seen, closed) and "[DONE]" not in told
    assert last_line(provider)["completion_tokens"] == 2


def test_a_stream_that_stalls_and_goes_on(provider):
    provider.script({"fault": "stall", "after": 3})
    answer, ended = ask(provider, STREAM, patience_s=SILENCE_S)
    assert ended == SILENT and len(events(dechunked(split(answer)[2])[0])) == 3
    provider.script({"fault": "stall", "after": 3, "wait_s": 0.05})
    assert events(dechunked(split(ask(provider, STREAM)[0])[2])[0])[-1] == "[DONE]"


def test_slow_tokens_come_one_by_one(provider):
    provider.script({"fault": "slow_tokens", "wait_s": 0.03})
    begun = time.monotonic()
    assert len(list(parts_of(provider, STREAM))) >= 8
    assert time.monotonic() - begun >= 0.03 * 8
    begun = time.monotonic()
    ask(provider, CHAT)
    assert time.monotonic() - begun >= 0.03 * 8 - 0.01


def parts_of(provider: RunningProvider, body: dict[str, Any]) -> Iterator[bytes]:
    """What each read of the socket gives."""
    with socket.create_connection(("127.0.0.1", provider.port), timeout=PATIENCE_S) as connection:
        connection.sendall(request(body, headers="Connection: close\r\n"))
        while part := connection.recv(1 << 22):
            yield part


@pytest.mark.parametrize("done", [False, True])
def test_an_error_inside_of_a_stream(client, provider, done):
    provider.script({"fault": "stream_error", "after": 3, "done": done})
    told = events(dechunked(split(ask(provider, STREAM)[0])[2])[0])
    assert ("[DONE]" in told) == done and "error" in json.loads(told[3])
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(**STREAM))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**CHAT)


WRONG = {
    "null": None,
    "zero": {"prompt_tokens": 0, "total_tokens": 0, "completion_tokens": 0},
    "negative": {"prompt_tokens": -4, "total_tokens": -12, "completion_tokens": -9},
    "huge": {"prompt_tokens": 10**18 + 3, "total_tokens": 10**18 + 11, "completion_tokens": 10**18 + 8},
    "strings": {"prompt_tokens": "3", "total_tokens": "11", "completion_tokens": "8"},
    "floats": {"prompt_tokens": 3.5, "total_tokens": 11.5, "completion_tokens": 8.5},
    "nested": {
        "usage": {"prompt_tokens": 3, "total_tokens": 11, "completion_tokens": 8},
        "prompt_tokens": {"value": 3}, "completion_tokens": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("usage", ["missing", *WRONG])
def test_usage_that_is_wrong(provider, usage):
    provider.script({"fault": "usage", "usage": usage})
    body = json.loads(split(ask(provider, CHAT)[0])[2])
    told = [json.loads(each) for each in events(dechunked(split(ask(provider, STREAM)[0])[2])[0])[:-1]]
    if usage == "missing":
        assert "usage" not in body and all("usage" not in each for each in told)
    else:
        assert body["usage"] == told[-1]["usage"] == WRONG[usage]
    assert last_line(provider)["completion_tokens"] == 8


FORMS: list[tuple[dict[str, Any], Any]] = [
    ({"fault": "crlf"}, lambda payload, sizes: payload.count(b"\r\n\r\n") == len(sizes) == 12),
    ({"fault": "comments"}, lambda payload, sizes: payload.count(b": keep alive\n\n") == 12),
    ({"fault": "split"}, lambda payload, sizes: set(sizes) == {1} and len(sizes) == len(payload)),
    ({"fault": "split", "split_bytes": 7}, lambda payload, sizes: max(sizes) == 7 and len(sizes) > 12),
    ({"fault": "merged"}, lambda payload, sizes: len(sizes) == 3),
    ({"fault": "huge_event"}, lambda payload, sizes: sizes[1] >= 1 << 20),
    ({"fault": "duplicate_done"}, lambda payload, sizes: payload.count(b"data: [DONE]\n\n") == 2),
    ({"fault": "extra_headers"}, lambda payload, sizes: len(sizes) == 12),
    ({"fault": "close_after"}, lambda payload, sizes: len(sizes) == 12),
    ({"fault": "close_idle"}, lambda payload, sizes: len(sizes) == 12),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "is_so"), FORMS, ids=lambda each: str(each) if isinstance(each, dict) else ""
)
def test_streams_of_an_unusual_form_say_the_same(client, provider, fault, is_so):
    def said() -> str:
        chunks = client.chat.completions.create(**STREAM)
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    plainly = said()
    provider.script(fault)
    payload, sizes, whole = dechunked(split(ask(provider, STREAM)[0])[2])
    assert whole and is_so(payload, sizes)
    assert said() == plainly
    assert last_line(provider)["completion_tokens"] == 8


def test_a_stream_without_done_ends_as_if_it_were_whole(provider):
    provider.script({"fault": "missing_done"})
    payload, _, whole = dechunked(split(ask(provider, STREAM)[0])[2])
    assert whole and "[DONE]" not in events(payload) and len(events(payload)) == 11


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
def test_the_end_of_the_connection_is_the_end_of_the_answer(provider, body):
    provider.script({"fault": "close_delimited"})
    with socket.create_connection(("127.0.0.1", provider.port)) as connection:
        connection.sendall(request(body))
        answer, end = read_all(connection, patience_s=PATIENCE_S)
    _, headers, data = split(answer)
    assert not {"content-length", "transfer-encoding"} & set(headers) and end == FIN
    assert data.endswith(b"[DONE]\n\n") if body is STREAM else json.loads(data)["usage"]


def test_extra_headers(provider):
    provider.script({"fault": "extra_headers", "count": 3, "bytes": 5000})
    headers = split(ask(provider, CHAT)[0])[1]
    assert [len(headers[f"x-extra-{i}"]) for i in range(3)] == [5000] * 3


@pytest.mark.parametrize("fault", ["close_after", "close_idle"])
def test_connections_that_the_server_closes(provider, fault):
    provider.script({"fault": fault})
    with socket.create_connection(("127.0.0.1", provider.port)) as connection:
        connection.sendall(request(CHAT))
        answer, end = read_all(connection, patience_s=PATIENCE_S)
    assert (split(answer)[0], end) == (200, FIN)
    assert split(answer)[1].get("connection") == ("close" if fault == "close_after" else None)


def test_an_idle_connection_that_is_used_again_in_time_is_kept(provider):
    provider.script({"match": {"to": 1}, "fault": "close_idle", "after_s": 0.1})
    with socket.create_connection(("127.0.0.1", provider.port)) as connection:
        connection.sendall(request(CHAT) + request(CHAT))
        answer, end = read_all(connection, patience_s=SILENCE_S)
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and end == SILENT


def test_connections_that_are_reset(provider):
    provider.script({"match": {"from": 2, "to": 2}, "fault": "reset_on_accept"})
    ends = []
    for _ in range(3):
        try:
            ends.append(ask(provider, CHAT)[1])
        except ConnectionError:  # the reset was there before the request was sent
            ends.append(RST)
    assert ends == [FIN, RST, FIN]


def test_a_listener_that_is_closed_for_a_time(provider):
    kept = socket.create_connection(("127.0.0.1", provider.port))
    kept.sendall(request(CHAT))
    assert kept.recv(1 << 16)
    provider.script({"fault": "refuse", "for_s": 0.3, "times": 1})
    with socket.create_connection(("127.0.0.1", provider.port)) as first:
        assert read_all(first, patience_s=PATIENCE_S)[1] == RST
    with kept:
        assert read_all(kept, patience_s=PATIENCE_S)[1] == RST
    refused = 0
    while True:
        try:
            with socket.create_connection(("127.0.0.1", provider.port)):
                break
        except ConnectionRefusedError:
            refused += 1
            time.sleep(0.01)
    assert refused and split(ask(provider, CHAT)[0])[0] == 200


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
def test_a_provider_that_is_killed_has_billed_what_it_sent(tmp_path, body):
    with running_provider(tmp_path, "--words", "8") as running:
        running.script({"fault": "kill", "after": 3})
        answer, _ = ask(running, body)
        assert running.process.wait(PATIENCE_S) == KILLED
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert [line["completion_tokens"] for line in running.billed()] == [2 if body is STREAM else 8]


def test_sigterm_ends_at_once_and_bills_what_is_under_way(tmp_path):
    with running_provider(tmp_path, "--ledger-batch", "1000") as running:
        running.script({"fault": "stall", "after": 5})
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(request(STREAM))
            got = b""
            while got.count(b"data: ") < 5:
                got += connection.recv(1 << 16)
            assert running.billed() == []
            os.kill(running.pid, signal.SIGTERM)
            assert running.process.wait(PATIENCE_S) == 0
        assert [line["completion_tokens"] for line in running.billed()] == [4]


# the script


def test_rules_count_what_they_admit_and_the_first_that_matches_counts(provider):
    provider.script(
        {"match": {"marker": "never"}, "fault": "none"},
        {"match": {"model": "a", "every": 3, "from": 2}, "fault": "status", "code": 500},
        {"match": {"stream": False, "endpoint": "chat", "from": 5, "to": 6}, "fault": "status", "code": 502},
    )

    def statuses(body: dict[str, Any], times: int) -> list[int]:
        return [split(ask(provider, body)[0])[0] for _ in range(times)]

    assert statuses({**CHAT, "model": "b"}, 2) == [200] * 2  # counted by the last rule alone
    assert statuses(CHAT, 7) == [200, 200, 502, 500, 200, 200, 500]
    never = {"model": "a", "messages": [{"role": "user", "content": "never"}]}
    assert statuses(never, 3) == [200] * 3
    assert [each["taken"] for each in provider.told("script")] == [3, 2, 1]


def test_chance_has_a_seed_and_a_rule_can_end(provider):
    rule = {"match": {"probability": 0.5, "seed": 3}, "fault": "status", "code": 500}

    def hits(**more: Any) -> list[bool]:
        provider.script({**rule, **more})
        return [split(ask(provider, CHAT)[0])[0] == 500 for _ in range(24)]

    assert hits() == hits()
    assert 4 <= sum(hits()) <= 20
    assert hits() != hits(match={"probability": 0.5, "seed": 4})
    assert sum(hits(times=2)) == 2


def test_a_storm_takes_all_for_a_time(provider):
    provider.script(
        {
            "match": {"from": 2, "to": 2},
            "storm_s": 0.4,
            "fault": "status",
            "code": 429,
            "retry_after": "seconds",
        }
    )
    statuses = [split(ask(provider, CHAT)[0])[0] for _ in range(4)]
    assert statuses == [200, 429, 429, 429]
    wait_for(lambda: split(ask(provider, CHAT)[0])[0] == 200)


def test_a_script_that_cannot_be_used_is_refused_with_all_its_faults():
    rules = [
        {"fault": "cuts"}, {"fault": "cut", "after": -1, "end": "soon"}, {"fault": "hang", "wait_s": "long"},
        {"fault": "refuse", "match": {"model": "a"}}, {"fault": "reset", "macth": {}},
        {"match": {"probability": 2}, "fault": "reset"},
    ]  # fmt: skip
    with pytest.raises(DocumentError) as raised:
        script_of(json.dumps({"rules": rules}).encode())
    keys = [fault.key for fault in raised.value.faults]
    assert keys == [
        "rules[0].fault", "rules[1].after", "rules[1].end", "rules[2].wait_s", "rules[3].match.model",
        "rules[4].macth", "rules[5].match.probability",
    ]  # fmt: skip
    with pytest.raises(DocumentError, match="is not JSON"):
        script_of(b"{")


def test_a_script_that_cannot_be_used_ends_the_command(tmp_path: Path):
    script = tmp_path / "faults.json"
    script.write_text('{"rules": [{"fault": "what"}]}')
    argv = [sys.executable, "-m", "modelyard.testing.faulty_provider", "--script", str(script)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 2 and "rules[0].fault" in ended.stderr


def test_a_script_from_a_file_and_a_key(tmp_path: Path):
    script = tmp_path / "faults.json"
    script.write_text('{"rules": [{"fault": "status", "code": 418}]}')
    with running_provider(tmp_path, "--script", str(script), "--api-key", "sk-right") as running:
        assert split(ask(running, CHAT)[0])[0] == 401
        right = openai.OpenAI(base_url=running.base_url, api_key="sk-right", max_retries=0)
        with right, pytest.raises(openai.APIStatusError) as raised:
            right.chat.completions.create(**CHAT)
        assert raised.value.status_code == 418


def test_every_fault_is_tried_here_and_described():
    import modelyard.testing.faulty_provider as described

    source = Path(__file__).read_text()
    for name in (*FAULTS, *AT_ACCEPT):
        assert f'"{name}"' in source, name
        assert name in (described.__doc__ or ""), name
