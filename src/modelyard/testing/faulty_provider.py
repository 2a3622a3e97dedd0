"""A provider with OpenAI's interface that misbehaves by a script and bills to a ledger; fast else.

    python -m modelyard.testing.faulty_provider --port 0 --script faults.json --ledger ledger.jsonl

It listens on the loopback and prints one JSON line when it is ready: `port`, `control_port`, `pid`. It serves
/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models and /health; answers follow from the prompt
alone (see `modelyard.testing.provider.answers`). A token is a word between white space, in prompts and
answers. SIGTERM ends it at once, as does the end of standard input with --until-stdin-ends.

The script is `{"rules": [RULE, ...]}`, tried in order for every request; the first that matches counts:

    {"match": {"model": "a", "endpoint": "chat", "stream": true, "marker": "fail-me",
               "every": 3, "from": 1, "to": 100, "probability": 0.1, "seed": 7},
     "storm_s": 2.0, "times": 5, "fault": "cut", "after": 4, "end": "fin"}

Every key of `match` may be left out. `marker` is text that the request's body holds; `from`, `to` and `every`
count the requests that model, endpoint, stream and marker admit. `storm_s`: once it took a request, the rule
takes all that it admits for so long. `times`: the most that it takes. The faults and their parameters, with
what holds if they are not given (times in seconds; for ever where it is null):

    refuse           for_s 1           the listener closes, and all connections are reset
    reset_on_accept                    these two count connections; `match` takes no key of a request
    hang             wait_s null       nothing is answered
    slow_first_byte  wait_s 1
    reset, no_answer                   TCP reset; end of the connection without a byte
    garbage_status, cut_headers        cut_headers: end reset | fin
    interim                            103 and 102 before the answer
    status           code 503, retry_after none|seconds|date, retry_after_s 1, body openai|html|empty,
                     message, error_code
    empty_body, html_body, garbage_body         with status 200
    cut              after 3, end reset|fin|clean    a stream after so many events, clean: without [DONE];
                                       a body in its middle
    stall            after 3, wait_s null
    slow_tokens      wait_s 0.05       after every token
    stream_error     after 3, code 500, done false   an error as an event
    kill             after 3           the process ends, status 86
    usage            usage missing|null|zero|negative|huge|strings|floats|nested
    crlf, comments, split (split_bytes 1), merged (merged 4), huge_event (huge_bytes 1048576),
    duplicate_done, missing_done       the form of a stream
    close_delimited                    no length and no chunks: the end of the connection is the end
    extra_headers    count 40, bytes 100
    close_after, close_idle (after_s 0.05)      after the answer; an idle connection
    none                               no fault, and no later rule

The ledger has one line for every request that could be read: `id` (of x-request-id), `idempotency_key`,
`endpoint`, `model`, `status` (0 where no status line was whole), `stream`, `billed`, `prompt_tokens`,
`completion_tokens`, `client_gone`, `fault`, `time`. What was generated is billed: a whole body when its
first byte is sent, a stream event by event until it is cut or the client is gone; a fault before an answer
or in its place bills nothing. Questions on either port, of which no fault closes the second: GET /_ledger
(totals), /_stats, /_script (what each rule took), /_requests (with --record), and POST /_script with a new
script.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from modelyard.core.errors import DocumentError
from modelyard.testing.provider.ledger import Ledger
from modelyard.testing.provider.script import Script
from modelyard.testing.provider.server import Conduct, Provider, script_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProvider:
    """A provider in a process of its own."""

    port: int
    control_port: int
    pid: int
    ledger_file: Path
    process: subprocess.Popen[str]

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes for its `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, *rules: dict[str, Any]) -> None:
        """Put other rules in force."""
        self._ask("/_script", json.dumps({"rules": rules}).encode())

    def told(self, question: str) -> Any:
        """What it says of its `ledger`, `stats`, `script` or `requests`."""
        return self._ask(f"/_{question}")

    def billed(self) -> list[dict[str, Any]]:
        """The ledger's lines."""
        return [json.loads(line) for line in self.ledger_file.read_text().splitlines()]

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control_port}{path}", body, timeout=60) as got:
            return json.load(got)


@contextmanager
def running_provider(folder: Path, *options: str) -> Iterator[RunningProvider]:
    """Start a provider with its ledger in a folder, and options of its command line; it ends afterwards."""
    ledger = folder / "ledger.jsonl"
    argv = [sys.executable, "-m", "modelyard.testing.faulty_provider", "--ledger", str(ledger)]
    argv += ["--until-stdin-ends", *options]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield RunningProvider(**ready, ledger_file=ledger, process=process)
        finally:
            process.terminate()
            process.stdin.close()


async def _serve(provider: Provider, port: int, *, until_stdin_ends: bool) -> None:
    ready = {"port": await provider.listen(port), "control_port": await provider.listen_for_control()}
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if until_stdin_ends:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    sys.stdout.write(json.dumps({**ready, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    await ended.wait()
    provider.stop()
    os._exit(0)  # streams that hang are not waited for


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal, or the end of standard input."""
    parser = argparse.ArgumentParser(description="A provider that misbehaves by a script.")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--script", type=Path, metavar="FILE", help="faults; none without it")
    parser.add_argument("--ledger", type=Path, metavar="FILE")
    parser.add_argument("--ledger-batch", type=int, default=1, metavar="N", help="lines in one write")
    parser.add_argument("--models", default="", metavar="A,B", help="any if not given")
    parser.add_argument("--words", type=int, default=16, help="words of an answer")
    parser.add_argument("--api-key", default="", help="refuse any other with 401")
    parser.add_argument("--record", type=int, default=0, metavar="N", help="keep the latest requests")
    parser.add_argument("--until-stdin-ends", action="store_true")
    told = parser.parse_args(arguments)
    try:
        rules = script_of(told.script.read_bytes(), str(told.script)) if told.script else ()
    except (DocumentError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    models = tuple(name for name in told.models.split(",") if name)
    conduct = Conduct(models=models, words=told.words, api_key=told.api_key, recorded=told.record)
    provider = Provider(conduct, Script(rules), Ledger(told.ledger, batch=told.ledger_batch))
    uvloop.run(_serve(provider, told.port, until_stdin_ends=told.until_stdin_ends))
    return 0


if __name__ == "__main__":
    sys.exit(main())
