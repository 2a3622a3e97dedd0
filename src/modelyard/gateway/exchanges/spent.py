"""What an answer used and what that costs; what an upstream does not tell, or tells wrongly, is estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from modelyard.evaluation.pool import Price
from modelyard.gateway.accounts.money import nano_usd
from modelyard.gateway.accounts.records import UsageSource
from modelyard.gateway.exchanges.choosing import CHARS_PER_TOKEN
from modelyard.routing.embedders.wordllama import packaged_tokenizer

#: No answer has more; an upstream that says so is not believed.
_MOST_TOKENS = 10_000_000
#: What a message has besides its text.
_TOKENS_A_MESSAGE = 4

TokenCount = Callable[[str], int]


class Used(NamedTuple):
    """Tokens of one answer. (Frozen dataclasses take microseconds longer to make.)"""

    prompt_tokens: int
    completion_tokens: int
    source: UsageSource

    def cost_nano_usd(self, price: Price, latency_s: float) -> int | None:
        """In billionths of a dollar; None where no price is declared."""
        usd = price.cost_usd(self.prompt_tokens, self.completion_tokens, latency_s)
        return None if usd is None else nano_usd(usd)


def reported(usage: object) -> Used | None:
    """What an upstream says, where it can be true."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    return Used(
        prompt_tokens=int(prompt or 0), completion_tokens=int(completion), source=UsageSource.REPORTED
    )


def estimated(prompt: str, answer: str, count: TokenCount, *, messages: int = 1) -> Used:
    """Counted with a tokenizer that need not be the model's."""
    return Used(
        prompt_tokens=count(prompt) + _TOKENS_A_MESSAGE * messages,
        completion_tokens=count(answer) if answer else 0,
        source=UsageSource.ESTIMATED,
    )


def believed(
    told: Used | None, answer: Callable[[], str], prompt: Callable[[], str], count: TokenCount
) -> Used:
    """What was told, unless an answer that is not empty is said to have taken nothing."""
    if told is not None and told.completion_tokens:
        return told
    text = answer()
    if told is not None and not text:
        return told
    return estimated(prompt(), text, count)


def answer_text(record: Mapping[str, Any]) -> str:
    """The text of a whole answer, and what it calls tools with."""
    texts: list[str] = []
    for choice in record.get("choices") or ():
        if not isinstance(choice, Mapping):
            continue
        message = choice.get("message")
        if isinstance(message, Mapping):
            texts += [str(message[key]) for key in ("content", "reasoning_content") if message.get(key)]
            texts += [
                str(call.get("function"))
                for call in message.get("tool_calls") or ()
                if isinstance(call, Mapping)
            ]
        elif choice.get("text"):
            texts.append(str(choice["text"]))
    return "".join(texts)


def by_length(text: str) -> int:
    """Tokens by the number of characters, where there is no tokenizer."""
    return -(-len(text) // CHARS_PER_TOKEN)


def packaged_counter() -> TokenCount:
    """Counts by the tokenizer in the package wordllama (a Llama's), or by length where it is missing."""
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        return by_length
    try:
        tokenizer = packaged_tokenizer(Path(spec.origin).parent)
    except (OSError, ValueError, ImportError):
        return by_length
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
