"""The multiple-choice scorer: the letter that an answer states last; several without a verdict are wrong."""

from __future__ import annotations

import re

from modelyard.results.examples import Example, Score
from modelyard.results.scorers import Scorer

_VERDICT = re.compile(
    r"\b(?i:answer|choice|option)\b(?:\s+(?i:is|would be))?\s*[:=]?\s*[*_(\[\s]{0,6}([A-Z])(?![\w'])"
    r"(?:[)\]*]*\s*(?:or|and|/)\s*[*(\[]*([A-HJ-Z])(?![\w']))?"
)
_MARKED = re.compile(r"\(([A-Z])\)|\*\*\(?([A-Z])[.)]?\*\*|(?:^|\n)\s*([A-Z])[.):](?=\s|$)")
_BARE = re.compile(r"\s*[*(\[]*([A-Za-z])[*)\].:]*\s*")


def stated_letter(text: str) -> str | None:
    """The letter that an answer chooses, or None where it chooses none or several."""
    if bare := _BARE.fullmatch(text):
        return bare[1].upper()
    if verdicts := _VERDICT.findall(text):
        letter, other = verdicts[-1]
        return None if other else str(letter)
    named = {letter for groups in _MARKED.findall(text) for letter in groups if letter}
    return named.pop() if len(named) == 1 else None


def _choice(example: Example, answer: str) -> Score:
    letter = stated_letter(answer)
    if letter is None:
        return Score(value=0.0, why="states no letter, or several")
    right = letter in {each.strip().strip("().").upper() for each in example.answers}
    return Score(value=float(right), why=f"states {letter}")


CHOICE = Scorer(name="choice", version="1", judge=_choice)
