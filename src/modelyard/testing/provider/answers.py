"""What the provider answers: a pure function of the request, so that any test can know it beforehand.

A text begins with a digest of the prompt and goes on with words of a fixed list; how many in all, the
request says with `words:N` in its last text, or else the provider's option; `max_tokens` cuts it. Where
tools are offered the answer is a call of one; with response_format json_object it is JSON.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from modelyard.testing.provider.asked import CHAT, EMBEDDINGS, MODELS, Asked

WORDS = (
    "amber", "brook", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "juniper", "knoll",
    "larch", "meadow", "north", "oasis", "prairie",
)  # fmt: skip
#: Seconds since 1970 that every answer was made at.
CREATED = 1_750_000_000
DIMENSIONS, MOST_DIMENSIONS = 8, 8192
_MARK, _NUMBER = "words:", re.compile(r"[0-9]{1,6}")
#: The ways in which reported usage can be wrong.
WRONG_USAGE = ("missing", "null", "zero", "negative", "huge", "strings", "floats", "nested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer before it is written; each piece is one token."""

    asked: Asked
    digest: str
    pieces: tuple[str, ...]
    # The tool that is called with the pieces as its arguments; empty for a text.
    tool: str
    finish: str
    # The models that are served, for the list of them.
    models: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All pieces."""
        return "".join(self.pieces)

    def usage(self) -> dict[str, int]:
        """The tokens, counted rightly."""
        prompt, made = self.asked.prompt_tokens, len(self.pieces)
        counted = {"prompt_tokens": prompt, "total_tokens": prompt + made}
        return counted if self.asked.endpoint == EMBEDDINGS else {**counted, "completion_tokens": made}


def answer(asked: Asked, *, words: int, models: tuple[str, ...] = ()) -> Answer:
    """The answer to a request, of so many words where it does not say how many."""
    digest = digest_of(asked)
    if asked.endpoint in (EMBEDDINGS, MODELS):
        return Answer(asked=asked, digest=digest, pieces=(), tool="", finish="stop", models=models)
    tool = _tool(asked) if asked.endpoint == CHAT else None
    if tool is not None:
        pieces = _split(orjson.dumps(_arguments(tool, digest)).decode().replace(",", ", "))
    elif _wants_json(asked):
        pieces = ('{"digest":', f' "{digest}",', ' "words":', " 2}")
    else:
        pieces = (digest, *_tail(max(wanted_words(asked, words), 1) - 1))
    limit = asked.limit or len(pieces)
    finish = "length" if limit < len(pieces) else "tool_calls" if tool else "stop"
    name = str(tool["name"]) if tool else ""
    return Answer(asked=asked, digest=digest, pieces=pieces[:limit], tool=name, finish=finish)


def digest_of(asked: Asked) -> str:
    """Sixteen hex digits of the prompt and the model."""
    return blake2b("\0".join((asked.model, *asked.texts)).encode(), digest_size=8).hexdigest()


def wanted_words(asked: Asked, otherwise: int) -> int:
    """How many words the request wants."""
    text = asked.texts[-1]
    at = text.rfind(_MARK)  # a search by expression would read a long prompt letter by letter
    found = _NUMBER.match(text, at + len(_MARK)) if at >= 0 else None
    return int(found[0]) if found else otherwise


def whole_body(made: Answer, usage: Any) -> dict[str, Any]:
    """The answer as one JSON body; `usage` as it is to be reported, left out where it is `...`."""
    asked, reported = made.asked, {} if usage is ... else {"usage": usage}
    if asked.endpoint == MODELS:
        return _list_of_models(made)
    if asked.endpoint == EMBEDDINGS:
        return {"object": "list", "model": asked.model, "data": _vectors(asked), **reported}
    choice: dict[str, Any] = {"index": 0, "finish_reason": made.finish, "logprobs": None}
    if asked.endpoint == CHAT:
        choice["message"] = _message(made)
    else:
        choice["text"] = made.text
    kind = "chat.completion" if asked.endpoint == CHAT else "text_completion"
    return {
        "id": made_id(made), "object": kind, "created": CREATED, "model": asked.model, "choices": [choice],
        **reported,
    }  # fmt: skip


def reported_usage(made: Answer, wrong: str) -> Any:
    """The usage as it is reported; `...` where it is not; right where `wrong` is empty."""
    right = made.usage()
    if wrong == "nested":
        return {"usage": right, "prompt_tokens": {"value": right["prompt_tokens"]}, "completion_tokens": []}
    if wrong in _WRONGLY:
        return {name: _WRONGLY[wrong](count) for name, count in right.items()}
    return {"missing": ..., "null": None}.get(wrong, right)


_WRONGLY: Mapping[str, Callable[[int], Any]] = {
    "zero": lambda count: 0, "negative": lambda count: -count - 1, "huge": lambda count: 10**18 + count,
    "strings": str, "floats": lambda count: count + 0.5,
}  # fmt: skip


def made_id(made: Answer) -> str:
    """The id of an answer, which follows from the prompt."""
    return ("chatcmpl-" if made.asked.endpoint == CHAT else "cmpl-") + made.digest


def call_id(made: Answer) -> str:
    """The id of its call of a tool."""
    return "call_" + made.digest


def _message(made: Answer) -> dict[str, Any]:
    if not made.tool:
        return {"role": "assistant", "content": made.text, "refusal": None}
    call = {"name": made.tool, "arguments": made.text}
    calls = [{"id": call_id(made), "type": "function", "function": call}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _list_of_models(made: Answer) -> dict[str, Any]:
    listed = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "modelyard"} for name in made.models
    ]
    if made.asked.model:
        return next(each for each in listed if each["id"] == made.asked.model)
    return {"object": "list", "data": listed}


def _vectors(asked: Asked) -> list[dict[str, Any]]:
    """One vector of unit interval numbers for each input, as numbers or as base64 of 32-bit floats."""
    wanted = asked.body.get("dimensions")
    count = wanted if isinstance(wanted, int) and 0 < wanted <= MOST_DIMENSIONS else DIMENSIONS
    data = []
    for index, text in enumerate(asked.texts):
        packed = b"".join(
            struct.pack("<f", blake2b(f"{i}\0{text}".encode(), digest_size=1).digest()[0] / 256)
            for i in range(count)
        )
        vector: Any = list(struct.unpack(f"<{count}f", packed))
        if asked.body.get("encoding_format") == "base64":
            vector = base64.b64encode(packed).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    return data


def _wants_json(asked: Asked) -> bool:
    form = asked.body.get("response_format")
    return isinstance(form, dict) and form.get("type") in ("json_object", "json_schema")


def _tool(asked: Asked) -> dict[str, Any] | None:
    """The function that is called: the one that must be, or the first."""
    offered = asked.body.get("tools")
    choice = asked.body.get("tool_choice")
    if not isinstance(offered, list) or choice == "none":
        return None
    functions = [each.get("function") for each in offered if isinstance(each, dict)]
    named = [each for each in functions if isinstance(each, dict) and isinstance(each.get("name"), str)]
    wanted = choice.get("function") if isinstance(choice, dict) else None
    name = wanted.get("name") if isinstance(wanted, dict) else None
    return next((each for each in named if name in (None, each["name"])), None)


def _arguments(function: dict[str, Any], digest: str) -> dict[str, Any]:
    """A value of the right type for every parameter that the function declares."""
    declared = function.get("parameters")
    properties = declared.get("properties") if isinstance(declared, dict) else None
    of: dict[Any, Any] = {"integer": 7, "number": 1.5, "boolean": True, "array": [], "object": {}}
    if not isinstance(properties, dict):
        return {}
    return {
        str(name): of.get(told.get("type"), digest) if isinstance(told, dict) else digest
        for name, told in properties.items()
    }


def _split(text: str) -> tuple[str, ...]:
    """The words of a text, each with the blank before it."""
    first, *others = text.split(" ")
    return (first, *(f" {word}" for word in others))


@lru_cache(maxsize=256)
def _tail(count: int) -> tuple[str, ...]:
    return tuple(f" {WORDS[i % len(WORDS)]}" for i in range(count))
