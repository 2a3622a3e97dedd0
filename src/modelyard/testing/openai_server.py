"""A server with OpenAI's interface that can add: `python -m modelyard.testing.openai_server --log FILE`.

A stand-in for a vendor in tests, with a vendor's faults on demand and a log of every request. Which requests
meet a fault depends on their Idempotency-Key alone, not on their order; and on words in a question:
`forbidden` is refused with 403, `stuck` always fails with 503, and `later` does the first time. With
--idempotent a key that comes again gets the answer that it had and is not billed again. With --answers FILE
it answers by a script, and with --weak-advice as a model that advises a search and knows little (see
`modelyard.testing.scripted_answers`); the log then holds what was sent, too.

It prints its address when it listens, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from modelyard.testing.scripted_answers import Script, weak_advice

_SUM = re.compile(r"(\d+)\s*\+\s*(\d+)")
_BLANK_S = 0.05
_CHOICE = re.compile(r"^([A-Z])\. (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """One in so many keys meets a fault at its first request; 0 means none."""

    limited: int = 0
    broken: int = 0
    cut: int = 0
    refused: int = 0
    # The fault comes at every request of such a key, not only at the first.
    lasting: bool = False

    def of(self, key: str, times: int) -> str:
        """The fault that the request of a key meets, the first being 1."""
        if times > 1 and not self.lasting:
            return ""
        number = int.from_bytes(sha256(key.encode()).digest()[:4], "big")
        kinds = {"limited": self.limited, "broken": self.broken, "cut": self.cut, "refused": self.refused}
        return next((kind for i, (kind, n) in enumerate(kinds.items()) if n and number % n == i % n), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How the server behaves."""

    faults: Faults = Faults()
    delay_s: float = 0.0
    idempotent: bool = False
    # The key that a request must have; any will do where it is empty.
    api_key: str = ""
    model: str = "adder"
    # A script of answers.
    answers: Path | None = None
    weak_advice: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeServer:
    """A running server."""

    endpoint: str
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """What was asked so far: key, time, status, whether it was billed."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def fake_server(log: Path, *options: str) -> Iterator[FakeServer]:
    """Start a server in a process of its own, with options of its command line; it ends afterwards."""
    argv = [sys.executable, "-m", "modelyard.testing.openai_server", "--log", str(log), *options]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield FakeServer(endpoint=process.stdout.readline().strip(), log=log)
        finally:
            process.stdin.close()
            process.wait()


def answer(body: dict[str, Any]) -> str:
    """The sum that is asked for; of choices, the letter of the right one; else the question."""
    messages = body.get("messages")
    text = str(messages[-1]["content"] if messages else body["prompt"])
    found = _SUM.search(text)
    if not found:
        return text
    total = str(int(found[1]) + int(found[2]))
    right = [letter for letter, choice in _CHOICE.findall(text) if choice.strip() == total]
    return right[0] if right else f"{found[1]} + {found[2]} = {total}"


def completion(body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """The body of a whole answer."""
    text = answer(body)
    question = json.dumps(body.get("messages") or body.get("prompt"))
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    if body.get("logprobs") and body.get("max_tokens") != 1:
        chosen = [-0.1, -0.4]
        content = [{"token": text, "logprob": value} for value in chosen]
        choice["logprobs"] = {"content": content} if chat else {"token_logprobs": chosen}
    elif body.get("logprobs"):
        others = [{"token": letter, "logprob": -3.0} for letter in "AB" if letter != text]
        top = [{"token": f" {text}", "logprob": -0.1}, *others]
        named = {each["token"]: each["logprob"] for each in top}
        choice["logprobs"] = {"content": [{"top_logprobs": top}]} if chat else {"top_logprobs": [named]}
    usage = {"prompt_tokens": len(question.split()), "completion_tokens": len(text.split())}
    return {"choices": [choice], "usage": usage}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, conduct: Conduct, log: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.conduct, self._log, self._lock = conduct, log, threading.Lock()
        self.script = None if conduct.answers is None else Script(conduct.answers)
        self._times: dict[str, int] = {}
        self._answers: dict[str, dict[str, Any]] = {}

    def count(self, key: str) -> int:
        """How often a key has been seen, with this time."""
        with self._lock:
            self._times[key] = self._times.get(key, 0) + 1
            return self._times[key]

    def charge(self, key: str, body: dict[str, Any], *, chat: bool) -> tuple[dict[str, Any], bool]:
        """The answer, and whether it is billed."""
        with self._lock:
            known = self._answers.get(key) if self.conduct.idempotent else None
            made = known or completion(body, chat=chat)
            self._answers[key] = made
            return made, known is None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients are killed here."""

    def note(self, key: str, status: int, *, billed: bool, **more: Any) -> None:
        """A line of the log."""
        record = {"key": key, "time": time.time(), "status": status, "billed": billed, **more}
        with self._lock, self._log.open("a") as file:
            file.write(json.dumps(record) + "\n")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key, conduct = self.headers.get("Idempotency-Key", ""), self.server.conduct
        if conduct.api_key and self.headers.get("Authorization") != f"Bearer {conduct.api_key}":
            return self._refuse(key, 401, "no access")
        if body["model"] != conduct.model:
            return self._refuse(key, 404, f"there is no model {body['model']}")
        if self.server.script is not None or conduct.weak_advice:
            return self._scripted(key, body, self.server.script)
        times, asked = self.server.count(key), json.dumps(body)
        if "forbidden" in asked:
            return self._refuse(key, 403, "this question is not allowed")
        if "stuck" in asked or ("later" in asked and times == 1):
            return self._refuse(key, 503, "try later")
        fault = conduct.faults.of(key, times)
        if fault == "limited":
            return self._refuse(key, 429, "slow down", wait_s=0.05)
        if fault == "broken":
            return self._refuse(key, 503, "try later")
        if fault == "refused":
            return self._refuse(key, 400, "the question is too long")
        made, billed = self.server.charge(key, body, chat=self.path.endswith("/chat/completions"))
        time.sleep(conduct.delay_s)
        data = json.dumps(made).encode()
        self.server.note(key, 200, billed=billed)
        if fault == "cut":
            self._send(200, data[: len(data) // 2], length=len(data))
            self.close_connection = True
            return None
        return self._send(200, data)

    def _scripted(self, key: str, body: dict[str, Any], script: Script | None) -> None:
        """Answer as the script says, or else with weak advice."""
        entry: dict[str, Any] = {"text": weak_advice(body["messages"])} if script is None else script.take()
        text, status = entry.get("text", ""), entry.get("status", 200)
        text = text if isinstance(text, str) else json.dumps(text)
        self.server.note(key, status, billed=status == 200, body=body, headers=dict(self.headers))
        made: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        words = {"prompt_tokens": len(json.dumps(body).split()), "completion_tokens": len(text.split())}
        made["usage"] = entry.get("usage", words)
        if status != 200:
            made = {"error": {"message": text}}
        data = entry["raw"].encode() if "raw" in entry else json.dumps(made).encode()
        time.sleep(entry.get("delay_s", 0.0))
        with suppress(OSError):  # a client that did not wait
            self._send(status, data, blanks=round(entry.get("drip_s", 0.0) / _BLANK_S))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's names)
        """Nothing on standard error."""

    def _refuse(self, key: str, status: int, why: str, *, wait_s: float = 0.0) -> None:
        self.server.note(key, status, billed=False)
        self._send(status, json.dumps({"error": {"message": why}}).encode(), wait_s=wait_s)

    def _send(
        self, status: int, data: bytes, *, length: int = 0, wait_s: float = 0.0, blanks: int = 0
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length or blanks + len(data)))
        if wait_s:
            self.send_header("Retry-After", str(wait_s))
        self.end_headers()
        for _ in range(blanks):
            self.wfile.write(b" ")
            time.sleep(_BLANK_S)
        self.wfile.write(data)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--log", type=Path, required=True)
    for name in ("limited", "broken", "cut", "refused"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N", help="one key in N")
    parser.add_argument("--lasting", action="store_true")
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--idempotent", action="store_true")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--model", default="adder")
    parser.add_argument("--answers", type=Path, metavar="FILE")
    parser.add_argument("--weak-advice", action="store_true")
    told = vars(parser.parse_args(arguments))
    log = told.pop("log")
    faults = Faults(**{name: told.pop(name) for name in ("limited", "broken", "cut", "refused", "lasting")})
    server = _Server(Conduct(faults=faults, **told), log)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}/v1\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
