"""Why a prompt goes to a model: what was weighed of each, and which fit prompts are near."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Embeddings, Floats, Integers
from modelyard.routing.decision import Candidates, Decision, Request, interval, why_not


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A fit prompt near a request, and each model's error on it (models that were asked)."""

    example: str
    similarity: float
    errors: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What was weighed of one model."""

    name: str
    # None where the model could not be chosen; `excluded` then says why.
    score: float | None
    predicted_error: float
    low: float
    high: float
    cost_usd: float
    # How many answers of the model lie in the cluster of the prompt.
    answers: int
    excluded: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with what it rests on."""

    decision: Decision
    # The winner first, then the others that could be chosen by score, then those that could not.
    standings: tuple[Standing, ...]
    # The nearest fit prompts, the most similar first.
    neighbours: tuple[Neighbour, ...]


def standings(
    pool: Candidates, decision: Decision, request: Request, answers_m: Integers
) -> tuple[Standing, ...]:
    """What was weighed of each model, best first; `answers_m` are those in the cluster of the prompt."""
    refused = why_not(pool, request)
    low_m, high_m = interval(pool.errors_m, pool.sd_m)
    rows = [
        Standing(
            name=name,
            score=None if name in refused else decision.scores[name],
            predicted_error=float(pool.errors_m[i]),
            low=float(low_m[i]),
            high=float(high_m[i]),
            cost_usd=float(pool.cost_usd_m[i]),
            answers=int(answers_m[i]),
            excluded=refused.get(name),
        )
        for i, name in enumerate(pool.names)
    ]
    by_cost = meets(decision, request)
    return tuple(sorted(rows, key=lambda row: _rank(row, decision, by_cost=by_cost)))


def meets(decision: Decision, request: Request) -> bool:
    """Whether a quality was asked for and is reached, so that the least cost wins."""
    return request.quality is not None and 1.0 - decision.predicted_error >= request.quality


def _rank(row: Standing, decision: Decision, *, by_cost: bool) -> tuple[bool, bool, float, str]:
    score = row.cost_usd if by_cost else row.predicted_error if row.score is None else row.score
    return (row.name != decision.chosen, row.score is None, score, row.name)


def nearest(
    embedding_d: Embeddings, prompts_nd: Embeddings, examples: Sequence[str], count: int
) -> list[tuple[int, str, float]]:
    """Place, name and similarity of the prompts most like one; of equals the first."""
    near = prompts_nd @ embedding_d
    return [(i, examples[i], float(near[i])) for i in np.argsort(-near, kind="stable")[:count].tolist()]


def errors_on(names: Sequence[str], errors_m: Floats) -> dict[str, float]:
    """Of the models that were asked."""
    told = zip(names, errors_m.tolist(), strict=True)
    return {name: error for name, error in told if not math.isnan(error)}
