"""Which letter of a multiple-choice question a model finds likeliest as the next token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: Tokens that are looked at, of a model of this machine.
_TOP = 100


def likeliest(letters: Sequence[str], logprobs: Mapping[str, float]) -> str | None:
    """The letter of most probability, spelt with or without a space or a bracket; None where none is told.

    Args:
        letters: Capital letters; of equals the first wins.
        logprobs: Natural logarithms of probabilities, by token.
    """
    mass = dict.fromkeys(letters, 0.0)
    for token, value in logprobs.items():
        letter = token.strip().strip("().▁Ġ").strip()
        if letter in mass and not math.isnan(value):
            mass[letter] += math.exp(min(value, 0.0))
    best = max(mass, key=mass.__getitem__)
    return best if mass[best] > 0 else None


def likeliest_of(letters: Sequence[str], logits_v: Any, decode: Callable[[list[int]], str]) -> str | None:
    """The same from the logits of a model of this machine, a tensor [vocabulary].

    Args:
        letters: As above.
        logits_v: Of the next token.
        decode: The text of tokens.
    """
    import torch

    top = torch.topk(torch.log_softmax(logits_v.float(), dim=-1), min(_TOP, len(logits_v)))
    spelt: dict[str, float] = {}
    for token, value in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        text = decode([token])
        spelt[text] = max(value, spelt.get(text, value))
    return likeliest(letters, spelt)
