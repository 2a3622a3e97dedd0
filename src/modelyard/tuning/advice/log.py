"""What a model was asked for a search, and what it said: one line of JSON for each call, in the run's folder.

The log is the memory of a searcher that asks: what was answered once for the same trials is not asked
again, in any process, and what the calls have cost counts against the caps. It is written under the
study's lock. A line that a loss of power has cut short is passed over, and the call is made again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from modelyard.core.errors import StateError
from modelyard.core.faults import Section

SCHEMA = "modelyard.advice/1"
NAME = "advice.jsonl"
#: Where a server does not count, a token is taken to be as short as this.
_CHARS_PER_TOKEN = 3


Outcome = Literal["taken", "refused", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call."""

    # Of the trial that it was for.
    number: int
    # The conversation: the digest of its first messages, in which the trial's number stands, and the seed.
    key: str
    # The first question of a conversation is 0.
    turn: int
    # The digest of all messages that were sent.
    prompt: str
    model: str
    # As it came; empty where none did.
    answer: str
    outcome: Outcome
    # What is wrong with the answer, or why there is none.
    why: str = ""
    prompt_tokens: int
    completion_tokens: int
    # Whether the tokens are a guess, a high one.
    estimated: bool = False
    # As charged, or else at the prices declared; None without either.
    cost_usd: float | None = None
    latency_s: float
    # When it ended, in seconds of the epoch.
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What the calls of a search may cost; a call that might exceed a cap is not made."""

    # Of a million tokens.
    price_in: float | None = None
    price_out: float | None = None
    max_cost_usd: float | None = None
    max_total_tokens: int | None = None

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """What so many tokens cost; None where no price is declared."""
        if self.price_in is None or self.price_out is None:
            return None
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6

    def problem(self, calls: Sequence[Call], *, prompt_chars: int, max_tokens: int) -> str:
        """Why another call cannot be made; empty where it can."""
        prompt_tokens = estimated_tokens(prompt_chars)
        spent = sum(call.prompt_tokens + call.completion_tokens for call in calls)
        if self.max_total_tokens is not None and spent + prompt_tokens + max_tokens > self.max_total_tokens:
            return (
                f"max_total_tokens is {self.max_total_tokens}: {spent} are spent, and the next call may take "
                f"{prompt_tokens + max_tokens}"
            )
        if self.max_cost_usd is None:
            return ""
        cost = math.fsum(call.cost_usd or 0.0 for call in calls)
        more = self.cost_usd(prompt_tokens, max_tokens) or 0.0
        if cost + more <= self.max_cost_usd:
            return ""
        return (
            f"max_cost_usd is {self.max_cost_usd:g}: {cost:.4g} USD are spent, and the next call may cost "
            f"{more:.4g}"
        )


def read_caps(section: Section) -> Caps:
    """The keys price_in, price_out, max_cost_usd and max_total_tokens."""
    names = ("price_in", "price_out", "max_cost_usd")
    told = {
        name: section.number(name, None, above=-1e-12) if section.has(name) else section.raw(name)
        for name in names
    }
    tokens = section.integer("max_total_tokens", 1_000_000, low=1)
    if told["max_cost_usd"] is not None and (told["price_in"] is None or told["price_out"] is None):
        section.faults.add(
            section.key("max_cost_usd"), told["max_cost_usd"], "needs price_in and price_out",
            "write what a million tokens cost, in USD",
        )  # fmt: skip
    return Caps(max_total_tokens=tokens, **told)


def estimated_tokens(chars: int) -> int:
    """How many tokens a text may have, at most for most texts."""
    return -(-chars // _CHARS_PER_TOKEN)


class AdviceLog:
    """The calls so far. Several processes may write, one at a time."""

    def __init__(self, folder: Path | None) -> None:
        """The log in this folder; without one the calls are kept in memory alone."""
        self.path = None if folder is None else folder / NAME
        self._calls: list[Call] = []
        self._read = 0  # bytes

    def calls(self) -> list[Call]:
        """All calls, in the order in which they were made.

        Raises:
            StateError: The file cannot be read.
        """
        if self.path is None:
            return self._calls
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise StateError(f"{self.path}: cannot be read ({error.strerror}); mend it") from error
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self._calls += [call for line in whole.splitlines() if (call := _call(line)) is not None]
        return self._calls

    def add(self, call: Call) -> None:
        """Record a call, for good."""
        if self.path is None:
            self._calls.append(call)
            return
        line = json.dumps({"schema": SCHEMA, **asdict(call)}).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell() and _last_byte(file.fileno()) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _last_byte(descriptor: int) -> bytes:
    return os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1)


def _call(line: bytes) -> Call | None:
    """The call of a line; None where it is none of ours."""
    try:
        record = json.loads(line)
        return Call(**{each.name: record[each.name] for each in fields(Call)})
    except (ValueError, LookupError, TypeError):
        return None
