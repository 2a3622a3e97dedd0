"""Multiple choice: `choice` takes the letter that an answer states last, several without a verdict are wrong;
`likelihood` takes the letter that the model finds likeliest as the next token.
"""

from __future__ import annotations

import re
from string import ascii_uppercase

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
    return Score(value=float(letter in _right(example)), why=f"states {letter}")


def letters(example: Example) -> tuple[str, ...]:
    """The letters of an example's choices."""
    return tuple(ascii_uppercase[: len(example.choices)])


def _right(example: Example) -> set[str]:
    return {each.strip().strip("().").upper() for each in example.answers}


def _choice_problem(example: Example) -> tuple[str, str] | None:
    if len(example.choices) > len(ascii_uppercase):
        return f"has {len(example.choices)} choices", f"give at most {len(ascii_uppercase)}"
    known = letters(example) if example.choices else tuple(ascii_uppercase)
    strange = sorted(_right(example) - set(known))
    if strange:
        return f"has the answer {strange[0]!r}, which is no letter of its choices", "give the right letter"
    return None


def _likelihood_problem(example: Example) -> tuple[str, str] | None:
    if len(example.choices) < 2:
        return "has no choices to compare", "list at least two choices"
    return _choice_problem(example)


CHOICE = Scorer(name="choice", version="1", zero_one=True, judge=_choice, problem=_choice_problem)
LIKELIHOOD = Scorer(
    name="likelihood",
    version="1",
    zero_one=True,
    judge=_choice,
    problem=_likelihood_problem,
    by_likelihood=True,
)  # fmt: skip
