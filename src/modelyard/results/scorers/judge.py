"""The scorer of a judge: the verdict of another model, which only an evaluation can ask."""

from __future__ import annotations

from modelyard.results.examples import Example, Score
from modelyard.results.scorers import Scorer


def _unjudged(_example: Example, _answer: str) -> Score:
    return Score(value=0.0, why="was not judged")


JUDGE = Scorer(name="judge", version="1", judge=_unjudged, by_verdict=True)
