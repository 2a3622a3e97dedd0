"""OpenAI's requests for completions as settings of a decoder, and what was decoded as its answers.

What would change an answer and is not supported is refused by name, as is a key that is not known: an answer
that silently ignores half of a request is no answer to it. Nothing is decoded or sent here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.core.errors import HeadsError
from modelyard.heads.decoding.decoder import Decoded
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.turns import Turns

#: Keys that cannot change an answer of this server.
_WITHOUT_EFFECT = frozenset(
    ("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user")
)
#: Keys that ask for what is not there, unless they have one of these values.
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "echo": (False,), "suffix": (None, ""), "logprobs": (None, False),
    "top_logprobs": (None, 0), "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},),
    "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "functions": ([],),
}  # fmt: skip
_ROLES = ("system", "developer", "user", "assistant", "tool")
_MOST_STOPS = 4
_LARGEST_SEED = 2**63 - 1


class Refused(HeadsError):  # noqa: N818  (what happens to the request)
    """A request that cannot be answered, with what HTTP and OpenAI's interface call that."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code or None}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that can be answered."""

    chat: bool
    ids: tuple[int, ...]
    settings: DecodeSettings
    stream: bool
    # Whether a stream ends with the counts of tokens.
    stream_usage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What all parts of one answer have in common."""

    id: str
    created: int
    model: str
    chat: bool

    def answer(self, decoded: Decoded, *, prompt_tokens: int) -> dict[str, Any]:
        """A whole answer."""
        text = decoded.text
        content = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": decoded.finish}
        return {
            **self._head("chat.completion"), "choices": [choice], "usage": usage(decoded, prompt_tokens)
        }  # fmt: skip

    def opening(self) -> dict[str, Any]:
        """The first part of a streamed answer of a conversation."""
        return self._part({"delta": {"role": "assistant", "content": ""}}, None)

    def piece(self, text: str) -> dict[str, Any]:
        """A part of a streamed answer."""
        return self._part({"delta": {"content": text}} if self.chat else {"text": text}, None)

    def closing(self, decoded: Decoded) -> dict[str, Any]:
        """The part that says why the text ended."""
        return self._part({"delta": {}} if self.chat else {"text": ""}, decoded.finish)

    def counts(self, decoded: Decoded, *, prompt_tokens: int) -> dict[str, Any]:
        """The part with the counts of tokens, which has no choices."""
        return {
            **self._head("chat.completion.chunk"), "choices": [], "usage": usage(decoded, prompt_tokens)
        }  # fmt: skip

    def _part(self, content: Mapping[str, Any], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, of_chat: str) -> dict[str, Any]:
        kind = of_chat if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(decoded: Decoded, prompt_tokens: int) -> dict[str, Any]:
    """The counts of tokens; how many came from drafts stands where OpenAI puts accepted predictions."""
    made = len(decoded.tokens)
    accepted = sum(length * times for length, times in decoded.accepted.items())
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": made,
        "total_tokens": prompt_tokens + made,
        "completion_tokens_details": {"accepted_prediction_tokens": accepted},
    }


def read_request(body: bytes, tokenizer: Any, *, chat: bool, model: str, defaults: DecodeSettings) -> Asked:
    """Read the body of a request.

    Args:
        body: JSON.
        tokenizer: Of the model.
        chat: Whether it is of a conversation.
        model: The only one that is served.
        defaults: The most tokens where the request says nothing, and the seed.

    Raises:
        Refused: With the parameter at fault.
    """
    fields = _Fields(body)
    named = fields.text("model")
    if named != model:
        raise Refused(
            f"the model {named!r} does not exist here; {model!r} is served", status=404, param="model",
            code="model_not_found",
        )  # fmt: skip
    ids = _chat_ids(fields, tokenizer) if chat else _prompt_ids(fields, tokenizer)
    asked = Asked(
        chat=chat, ids=tuple(ids), settings=_settings(fields, defaults), stream=fields.flag("stream"),
        stream_usage=_stream_usage(fields),
    )  # fmt: skip
    fields.close()
    return asked


def _settings(fields: _Fields, defaults: DecodeSettings) -> DecodeSettings:
    most = fields.number("max_completion_tokens", None, low=1, whole=True)
    also = fields.number("max_tokens", None, low=1, whole=True)
    tokens = next((int(each) for each in (most, also) if each is not None), defaults.max_new_tokens)
    top_k = fields.number("top_k", 0, low=-1, whole=True)
    seed = fields.number("seed", defaults.seed, low=-_LARGEST_SEED, high=_LARGEST_SEED, whole=True)
    return DecodeSettings(
        max_new_tokens=tokens,
        temperature=float(fields.number("temperature", 1.0, low=0, high=2) or 0),
        top_p=max(float(fields.number("top_p", 1.0, low=0, high=1) or 0), 1e-9),
        top_k=max(int(top_k or 0), 0),
        repetition_penalty=float(fields.number("repetition_penalty", 1.0, low=0.01, high=100) or 1),
        stop=fields.stops(),
        seed=int(seed or 0) % _LARGEST_SEED,
        lookup=defaults.lookup,
    )


def _stream_usage(fields: _Fields) -> bool:
    options = fields.take("stream_options", None)
    if options is None:
        return False
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise Refused('stream_options: write {"include_usage": true}', param="stream_options")
    return bool(options.get("include_usage", False))


def _chat_ids(fields: _Fields, tokenizer: Any) -> list[int]:
    messages = fields.take("messages", None)
    if not isinstance(messages, list) or not messages:
        raise Refused("messages: must be a list of at least one message", param="messages")
    said = [_message(message, place) for place, message in enumerate(messages)]
    turns = Turns(tokenizer)
    try:
        if turns.templated:
            return turns.rendered(said, answer_next=True)
        return turns.asked("\n\n".join(message["content"] for message in said))
    except HeadsError as error:
        raise Refused(str(error), param="messages") from error


def _message(message: object, place: int) -> dict[str, str]:
    param = f"messages[{place}]"
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise Refused(f"{param}: must have a role of {', '.join(_ROLES)}, and content", param=param)
    content = message.get("content")
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        content = "".join(map(str, texts)) if len(texts) == len(content) else None
    if not isinstance(content, str):
        raise Refused(f"{param}.content: must be text, or parts that are text", param=f"{param}.content")
    role = "system" if message["role"] == "developer" else str(message["role"])
    return {"role": role, "content": content}


def _prompt_ids(fields: _Fields, tokenizer: Any) -> list[int]:
    prompt = fields.take("prompt", None)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        ids: list[int] = tokenizer.encode(prompt)
        return ids
    known = len(tokenizer)
    if isinstance(prompt, list) and all(type(token) is int and 0 <= token < known for token in prompt):
        return prompt
    raise Refused(f"prompt: must be one text, or one list of tokens below {known}", param="prompt")


class _Fields:
    """A request's keys, each of which somebody must take."""

    def __init__(self, body: bytes) -> None:
        try:
            value = json.loads(body)
            json.dumps(value, ensure_ascii=False).encode()  # half a character has no tokens
        except (ValueError, RecursionError) as error:
            raise Refused(f"the body is not JSON ({error}); send a JSON object") from error
        if not isinstance(value, dict):
            raise Refused("the body is not a JSON object; send one")
        self._left: dict[str, Any] = value

    def take(self, name: str, default: Any) -> Any:
        """A value, `default` where there is none or null."""
        value = self._left.pop(name, None)
        return default if value is None else value

    def text(self, name: str) -> str:
        """A text that must be there."""
        value = self.take(name, None)
        if not isinstance(value, str):
            raise Refused(f"{name}: must be a text", param=name)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.take(name, False)
        if not isinstance(value, bool):
            raise Refused(f"{name}: must be true or false", param=name)
        return value

    def number(
        self, name: str, default: float | None, *, low: float, high: float = 2**31 - 1, whole: bool = False
    ) -> float | None:
        """A number between two bounds."""
        value = self.take(name, default)
        kinds = int if whole else (int, float)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high
        ):
            what = "a whole number" if whole else "a number"
            raise Refused(f"{name} = {value!r}: must be {what} from {low:g} to {high:g}", param=name)
        return None if value is None else value

    def stops(self) -> tuple[str, ...]:
        """One text or up to four, none of them empty."""
        value = self.take("stop", [])
        texts: Sequence[object] = [value] if isinstance(value, str) else value
        fit = isinstance(texts, list) and len(texts) <= _MOST_STOPS
        if not fit or not all(isinstance(text, str) and text for text in texts):
            raise Refused(f"stop: must be one to {_MOST_STOPS} texts that are not empty", param="stop")
        return tuple(map(str, texts))

    def close(self) -> None:
        """Refuse what is left, unless it has no effect."""
        for name, value in self._left.items():
            if name in _WITHOUT_EFFECT or value is None:
                continue
            if name not in _ONLY:
                raise Refused(
                    f"{name}: is not known here; leave it out", param=name, code="unknown_parameter"
                )
            if value not in _ONLY[name]:
                raise Refused(f"{name}: is not supported here; leave it out", param=name, code="unsupported")
