"""Prompts to continue, from a file of JSON lines: {"prompt"} or {"messages"}; other keys are passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import HeadsError
from modelyard.core.faults import Faults
from modelyard.heads.lines import numbered_lines
from modelyard.heads.turns import Turns

_REMEDY = 'write {"prompt"} or {"messages": [{"role", "content"}, ...]}, one object a line'


def read_prompts(path: Path, tokenizer: Any) -> list[list[int]]:
    """The tokens of each prompt, up to where the model's answer begins.

    Raises:
        DocumentError: With the faults of the file, each with its line.
        HeadsError: It holds no prompt.
    """
    faults, turns = Faults(file=str(path)), Turns(tokenizer)
    prompts = []
    for number, line in numbered_lines(path, faults):
        try:
            prompts.append(_prompt(json.loads(line), turns))
        except (ValueError, HeadsError) as error:
            faults.add(f"line {number}", line[:80], str(error), _REMEDY)
    faults.raise_if_any()
    if not prompts:
        raise HeadsError(f"{path}: holds no prompt; {_REMEDY}")
    return prompts


def _prompt(value: Any, turns: Turns) -> list[int]:
    if isinstance(value, Mapping):
        prompt, messages = value.get("prompt"), value.get("messages")
        if isinstance(prompt, str) and prompt:
            return turns.asked(prompt)
        if isinstance(messages, list) and messages and all(map(_is_message, messages)):
            kept = messages[:-1] if messages[-1]["role"] == "assistant" else messages
            if kept:
                return turns.rendered(kept, answer_next=True)
    raise HeadsError("is neither a prompt nor messages")


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in ("role", "content"))
