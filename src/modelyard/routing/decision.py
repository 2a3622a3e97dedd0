"""Which model a request goes to: a pure function of predicted errors, prices and what is asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from modelyard.core.errors import RoutingError

#: Half the width of the interval that is told of a predicted error: 90 % of a normal distribution.
_DEVIATIONS = 1.645


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a request asks for: at most one of the four weights and limits; without any, the least error."""

    # How much error the price of the fit pool's dearest model is worth.
    lambda_: float | None = None
    # How much error one USD is worth.
    lambda_usd: float | None = None
    # The most that one answer may cost.
    budget_usd: float | None = None
    # The least predicted quality, 1 minus the error.
    quality: float | None = None
    # Only these models, where any is named; and never those.
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fields = ("lambda_", "lambda_usd", "budget_usd", "quality")
        given = {n.rstrip("_"): v for n in fields if (v := getattr(self, n)) is not None}
        if len(given) > 1:
            raise RoutingError(f"a request has {' and '.join(given)}; give one of them")
        for name, value in given.items():
            if not math.isfinite(value) or value < 0 or (name == "quality" and value > 1):
                within = "from 0 to 1" if name == "quality" else "of at least 0"
                raise RoutingError(f"{name} of a request is {value}; give a number {within}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is predicted of one model for one prompt."""

    name: str
    error: float
    # The standard deviation of what is not known about the error.
    sd: float
    cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The model that was chosen, and why."""

    chosen: str
    score: float
    # Of every model that was allowed; the least wins except where `reason` says otherwise.
    scores: dict[str, float]
    cluster: int
    predicted_error: float
    # A 90 % interval of the predicted error.
    low: float
    high: float
    cost_usd: float
    reason: str


def decide(
    candidates: Sequence[Candidate], request: Request, *, dearest_usd: float, cluster: int = 0
) -> Decision:
    """Choose a model; equal scores go to the cheaper one, equal prices to the first by name.

    Args:
        candidates: The models of the pool.
        request: What the request asks for.
        dearest_usd: The price that `lambda_` refers to: of the dearest model of the fit pool.
        cluster: The cluster of the prompt, for the record.

    Raises:
        RoutingError: No model is left, none is within the budget, or the price of one is not known.
    """
    left = _allowed(candidates, request)
    scores = {c.name: _score(c, request, dearest_usd) for c in left}
    chosen, reason = _chosen(left, scores, request)
    return Decision(
        chosen=chosen.name,
        score=scores[chosen.name],
        scores=scores,
        cluster=cluster,
        predicted_error=chosen.error,
        low=max(0.0, chosen.error - _DEVIATIONS * chosen.sd),
        high=min(1.0, chosen.error + _DEVIATIONS * chosen.sd),
        cost_usd=chosen.cost_usd,
        reason=reason,
    )


def _allowed(candidates: Sequence[Candidate], request: Request) -> list[Candidate]:
    """The models that may be chosen, by name; each has a price."""
    names = {c.name for c in candidates}
    if not names:
        raise RoutingError("the pool of the router is empty; onboard a model")
    for what, listed in (("allow", request.allow), ("deny", request.deny)):
        _refuse_unknown(what, listed, names)
    left = [
        c
        for c in sorted(candidates, key=lambda c: c.name)
        if (not request.allow or c.name in request.allow) and c.name not in request.deny
    ]
    if not left:
        unlisted = sorted(names - set(request.allow)) if request.allow else []
        removed = [f"deny removes {', '.join(sorted(request.deny))}"] if request.deny else []
        removed += [f"allow leaves out {', '.join(unlisted)}"] if unlisted else []
        raise RoutingError(f"no model is left: {'; '.join(removed)}; allow another one")
    for candidate in left:
        if not math.isfinite(candidate.cost_usd):
            raise RoutingError(
                f"the price of {candidate.name!r} is {candidate.cost_usd}, and unknown is not free; "
                "give its price, or deny the model"
            )
    return left


def _refuse_unknown(what: str, listed: Sequence[str], names: Collection[str]) -> None:
    for name in listed:
        if name not in names:
            raise RoutingError(f"{what} names {name!r}, which is not in the pool: {', '.join(sorted(names))}")


def _score(candidate: Candidate, request: Request, dearest_usd: float) -> float:
    if request.lambda_usd is not None:
        return candidate.error + request.lambda_usd * candidate.cost_usd
    relative = candidate.cost_usd / dearest_usd if dearest_usd > 0 else candidate.cost_usd
    return candidate.error + (request.lambda_ or 0.0) * relative


def _chosen(left: Sequence[Candidate], scores: dict[str, float], request: Request) -> tuple[Candidate, str]:
    """The winner and the reason; the scores of budgets and floors are the predicted errors."""

    def rank(candidate: Candidate) -> tuple[float, float, str]:
        return scores[candidate.name], candidate.cost_usd, candidate.name

    if request.budget_usd is not None:
        within = [c for c in left if c.cost_usd <= request.budget_usd]
        if not within:
            cheapest = min(left, key=lambda c: (c.cost_usd, c.name))
            raise RoutingError(
                f"no model answers for {request.budget_usd:g} USD; the cheapest, {cheapest.name!r}, costs "
                f"{cheapest.cost_usd:g} USD: raise the budget"
            )
        return min(within, key=rank), f"the best predicted of those within {request.budget_usd:g} USD"
    if request.quality is not None:
        floor = request.quality
        good = [c for c in left if 1.0 - c.error >= floor]
        if good:
            best = min(good, key=lambda c: (c.cost_usd, c.error, c.name))
            return best, f"the cheapest with a predicted quality of {floor:g}"
        return min(left, key=rank), f"the best predicted; none reaches a quality of {floor:g}"
    if request.lambda_usd is not None:
        return min(left, key=rank), f"the least error + {request.lambda_usd:g} * cost in USD"
    if request.lambda_:
        return min(left, key=rank), f"the least error + {request.lambda_:g} * cost relative to the dearest"
    return min(left, key=rank), "the least predicted error"
