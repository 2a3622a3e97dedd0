"""The OpenAI interface against a server with a vendor's faults."""

from __future__ import annotations

import json
import math
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelyard.core.errors import EngineError
from modelyard.core.faults import Faults, Section
from modelyard.results.engines import Question
from modelyard.results.engines.openai import OpenAISettings
from modelyard.testing.openai_server import fake_server

SUM = Question(example_id="q", prompt="What is 20 + 22?")
MENU = "Which is 1 + 2?\n\nA. 5\nB. 3\n\nAnswer:"


@pytest.fixture
def server(tmp_path):
    """Starts a server with the options and opens an engine over it."""

    @contextmanager
    def start(*options, **fields):
        with fake_server(tmp_path / "log.jsonl", *options) as running:
            settings = OpenAISettings(**{"endpoint": running.endpoint, "model": "adder", **fields})
            engine = settings.open({})
            yield engine, running
            engine.close()

    return start


def test_an_answer_has_its_counts_and_its_time(server):
    with server() as (engine, running):
        reply = engine.ask(SUM, "k1")
        (logged,) = running.requests()
    assert reply.text == "20 + 22 = 42"
    assert reply.prompt_tokens and reply.completion_tokens == 5
    assert reply.latency_s is not None and reply.latency_s > 0 and reply.cost_usd is None
    assert logged["key"] == "k1" and logged["billed"]


def test_the_request_is_what_is_sent(server):
    chat = Question(example_id="q", messages=(("system", "Add."), ("user", "1 + 1")))
    with server(options={"temperature": 0, "stop": ["\n"]}) as (engine, running):
        request = engine.request(chat)
        assert engine.ask(chat, "k").text == "1 + 1 = 2"
    assert request == {
        "method": "POST",
        "url": f"{running.endpoint}/chat/completions",
        "body": {
            "model": "adder",
            "messages": [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1"}],
            "temperature": 0,
            "stop": ["\n"],
        },
    }


def test_a_template_is_put_around_the_prompt_of_a_completion(server):
    with server(api="completions", template="Q: {prompt}\nA:") as (engine, _):
        assert engine.request(SUM)["body"]["prompt"] == "Q: What is 20 + 22?\nA:"
        assert engine.ask(SUM, "k").text == "20 + 22 = 42"
    for entry in ({"template": "Q:"}, {"template": "Q: {prompt}"}, {"api": "completions", "template": "Q"}):
        faults = Faults(file="f")
        told = {"name": "m", "endpoint": "http://h/v1", **entry}
        OpenAISettings.read(Section(told, faults=faults), Path())
        assert [fault.key for fault in faults.found] == ["template"], entry


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_likeliest_letter_is_asked_for(server, api):
    question = Question(example_id="q", prompt=MENU, letters=("A", "B"))
    with server(api=api) as (engine, _):
        body = engine.request(question)["body"]
        assert engine.ask(question, "k").text == "B"
    assert body["max_tokens"] == 1 and body["logprobs"]


@pytest.mark.parametrize(
    ("options", "said", "again", "wait_s"),
    [
        (("--limited", "1"), "status 429: ", True, 0.05),
        (("--broken", "1"), "status 503: ", True, 0.0),
        (("--cut", "1"), "RemoteProtocolError: ", True, 0.0),
        (("--refused", "1"), "status 400: ", False, 0.0),
    ],
)
def test_a_fault_of_one_question_is_in_its_reply(server, options, said, again, wait_s):
    with server(*options) as (engine, _):
        reply = engine.ask(SUM, "k")
        assert reply.text is None and reply.error.startswith(said), reply
        assert (reply.again, reply.wait_s) == (again, wait_s)
        assert engine.ask(SUM, "k").text == "20 + 22 = 42"  # the second time it is well


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_an_answer_tells_its_confidence_where_the_server_does(server, api):
    with server(api=api, options={"logprobs": True}) as (engine, _):
        assert engine.ask(SUM, "k").confidence == pytest.approx(math.exp(-0.25))
    with server(api=api) as (engine, _):
        assert engine.ask(SUM, "k").confidence is None


@contextmanager
def saying(body, status=200):
    """A server that answers everything with one body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine = OpenAISettings(endpoint=f"http://127.0.0.1:{server.server_port}/v1", model="m").open({})
        try:
            yield engine.ask(SUM, "k")
        finally:  # a server that is closed and not shut down takes a core for ever
            engine.close()
            server.shutdown()


def message(content, **more):
    return {"choices": [{"message": {"content": content}}], **more}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (message("yes"), "yes"),
        (message(None), ""),  # an answer of tool calls alone
        (message([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]), "ab"),
        (message("yes", usage={"prompt_tokens": 3.5, "completion_tokens": -1, "cost": "free"}), "yes"),
        (message("yes", usage=[]), "yes"),
        (message("yes", usage={"prompt_tokens": 2**70, "completion_tokens": True, "cost": True}), "yes"),
    ],
)
def test_odd_answers_are_read_as_far_as_they_go(body, text):
    with saying(body) as reply:
        assert (reply.text, reply.error) == (text, "")
        assert reply.prompt_tokens is None and reply.completion_tokens is None and reply.cost_usd is None


@pytest.mark.parametrize(
    "body", ["<html>Bad gateway</html>", "", "[]", {"error": {"message": "busy"}}, "[" * 100_000]
)
def test_what_is_no_answer_at_all_is_asked_again(body):
    with saying(body) as reply:
        assert reply.text is None and reply.again and reply.error.startswith("no answer but ")


def test_what_a_filter_held_back_is_final():
    with saying({"choices": []}) as reply:
        assert reply.text is None and not reply.again and reply.error == "an answer without choices"


def test_a_redirect_ends_everything_and_a_moderated_question_does_not(server):
    with pytest.raises(EngineError, match="answers 308"), saying("", status=308):
        pass
    with pytest.raises(EngineError, match="answers 403"), saying("no", status=403):
        pass
    with server() as (engine, _):
        assert engine.ask(SUM, "k1").text == "20 + 22 = 42"
        refused = engine.ask(Question(example_id="q", prompt="forbidden"), "k2")
        assert refused.error.startswith("status 403") and not refused.again


@pytest.mark.parametrize("key", ["sk-SECRET\n", "  sk-SECRET "])
def test_white_space_around_a_key_is_nothing(tmp_path, key):
    with fake_server(tmp_path / "log.jsonl", "--api-key", "sk-SECRET") as running:
        engine = OpenAISettings(endpoint=running.endpoint, model="adder", api_key="KEY").open({"KEY": key})
        assert engine.ask(SUM, "k").text == "20 + 22 = 42"
        engine.close()


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown():
    settings = OpenAISettings(endpoint="http://127.0.0.1:9/v1", model="m", api_key="KEY")
    with pytest.raises(EngineError, match="KEY holds what no header can") as caught:
        settings.open({"KEY": "sk-\nSECRET"})
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"endpoint": "http://user:pw@host/v1"}, "endpoint"),
        ({"endpoint": "http://[bad/v1"}, "endpoint"),
        ({"endpoint": "http://a b/v1"}, "endpoint"),
        ({"endpoint": "http://h:99999/v1"}, "endpoint"),
        ({"endpoint": "http://h/v1", "options": {"temperature": math.nan}}, "options"),
        ({"endpoint": "http://h/v1", "options": {"seed": 10**20}}, "options"),
    ],
)
def test_what_cannot_be_asked_or_digested_is_a_fault(entry, key):
    faults = Faults(file="f")
    OpenAISettings.read(Section({"name": "m", **entry}, faults=faults), Path())
    assert [fault.key for fault in faults.found] == [key]


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "foo://x")
    with pytest.raises(EngineError, match=r"no connection can be made .* see HTTP_PROXY"):
        OpenAISettings(endpoint="http://127.0.0.1:9/v1", model="m").open({})


def test_an_answer_that_cannot_be_read_is_not_paid_for_again():
    with saying(message(5)) as reply:
        assert reply.text is None and not reply.again and "content is int" in reply.error


def test_a_key_in_place_of_its_variable_is_not_shown():
    faults = Faults(file="f")
    entry = {"name": "m", "endpoint": "http://h/v1", "api_key": "sk-live-12345"}
    OpenAISettings.read(Section(entry, faults=faults), Path())
    (fault,) = faults.found
    assert fault.key == "api_key" and "12345" not in str(fault)


def test_no_access_and_no_such_model_end_everything(server):
    with (
        server("--api-key", "right") as (engine, _),
        pytest.raises(EngineError, match=r"answers 401 .* mend endpoint, model or api_key"),
    ):
        engine.ask(SUM, "k")
    with server(model="other") as (engine, _), pytest.raises(EngineError, match="there is no model other"):
        engine.ask(SUM, "k")


def test_a_server_that_is_not_there_is_asked_again(tmp_path):
    engine = OpenAISettings(endpoint="http://127.0.0.1:9/v1", model="m", timeout_s=2.0).open({})
    reply = engine.ask(SUM, "k")
    engine.close()
    assert reply.again and reply.error.startswith("ConnectError")


def test_a_key_that_is_not_set_is_told_by_its_name():
    settings = OpenAISettings(endpoint="http://127.0.0.1:9/v1", model="m", api_key="NOT_SET")
    with pytest.raises(EngineError, match="no NOT_SET, which 'm' names as its api_key; set it"):
        settings.open({})


def test_what_changes_answers_is_in_the_identity_and_what_does_not_is_not():
    plain = OpenAISettings(endpoint="http://h/v1", model="m")
    assert (
        plain.identity
        == OpenAISettings(endpoint="http://h/v1", model="m", api_key="K", timeout_s=1.0).identity
    )
    for other in ({"model": "n"}, {"endpoint": "http://i/v1"}, {"api": "completions"}, {"options": {"a": 1}}):
        fields = {"endpoint": "http://h/v1", "model": "m", **other}
        assert OpenAISettings(**fields).identity != plain.identity, other


def test_every_fault_of_an_entry_is_found():
    faults = Faults(file="f")
    entry = {"name": "m", "endpoint": "ftp://x", "api": "talk", "timeout_s": 0, "options": [1]}
    read = OpenAISettings.read(Section(entry, faults=faults), Path())
    assert [fault.key for fault in faults.found] == ["endpoint", "options", "api", "timeout_s"]
    assert read.model == "m"
