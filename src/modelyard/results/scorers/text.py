"""Scorers that compare text.

`exact` as it stands, `normalised` whatever the case, articles, punctuation and white space, `regex`
what a regular expression extracts.
"""

from __future__ import annotations

import re
import unicodedata

from modelyard.results.examples import Example, Score
from modelyard.results.scorers import Scorer

_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised_text(text: str) -> str:
    """Lower case, without punctuation and articles, words one space apart."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(" " if unicodedata.category(sign).startswith("P") else sign for sign in folded)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def _exact(example: Example, answer: str) -> Score:
    if answer.strip() in {each.strip() for each in example.answers}:
        return Score(value=1.0, why="equal")
    return Score(value=0.0, why="differs from every answer")


def _normalised(example: Example, answer: str) -> Score:
    given = normalised_text(answer)
    wanted = [text for each in example.answers if (text := normalised_text(each))]
    if given in wanted:
        return Score(value=1.0, why="equal once normalised")
    if example.options.get("contains") is True and any(f" {each} " in f" {given} " for each in wanted):
        return Score(value=1.0, why="contains an answer")
    return Score(value=0.0, why="differs from every answer")


def _regex(example: Example, answer: str) -> Score:
    """The last match of `pattern` gives the text; `group` says which of its groups."""
    group = example.options.get("group", 0)
    try:
        found = list(re.finditer(str(example.options["pattern"]), answer))
        text = found[-1].group(group if isinstance(group, int) else str(group)) if found else None
    except (KeyError, re.error, IndexError) as error:
        return Score(value=0.0, why=f"the example's pattern or group cannot be used: {error}")
    if text is None:
        return Score(value=0.0, why="the pattern is not found")
    right = normalised_text(text) in {normalised_text(each) for each in example.answers}
    return Score(value=float(right), why=f"extracted {text!r}")


EXACT = Scorer(name="exact", version="1", zero_one=True, judge=_exact)
NORMALISED = Scorer(name="normalised", version="1", zero_one=True, judge=_normalised)
REGEX = Scorer(name="regex", version="1", zero_one=True, judge=_regex)
