"""Which letter of a multiple-choice question a model finds likeliest as the next token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


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
