"""Which model a request goes to: a pure function of predicted errors, prices and what is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Floats

#: Half the width of the interval that is told of a predicted error: 90 % of a normal distribution.
_DEVIATIONS = 1.645

_Flags = npt.NDArray[np.bool_]


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
class Candidates:
    """What is predicted of each model for one prompt; arrays of [M]."""

    names: tuple[str, ...]
    errors_m: Floats
    # The standard deviations of what is not known about the errors.
    sd_m: Floats
    cost_usd_m: Floats


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


def decide(pool: Candidates, request: Request, *, dearest_usd: float, cluster: int = 0) -> Decision:
    """Choose a model; equal scores go to the cheaper one, equal prices to the first by name.

    Args:
        pool: The models of the pool.
        request: What the request asks for.
        dearest_usd: The price that `lambda_` refers to: of the dearest model of the fit pool.
        cluster: The cluster of the prompt, for the record.

    Raises:
        RoutingError: No model is left, none is within the budget, or the price of one is not known.
    """
    left = _allowed(pool, request)
    scores = pool.errors_m + _usd_weight(request, dearest_usd) * pool.cost_usd_m
    i, reason = _chosen(pool, left, scores, request)
    error, deviation = float(pool.errors_m[i]), float(pool.sd_m[i])
    told = scores.tolist()
    return Decision(
        chosen=pool.names[i],
        score=told[i],
        scores=dict(zip(pool.names, told, strict=True))
        if left.all()
        else {pool.names[j]: told[j] for j in np.flatnonzero(left)},
        cluster=cluster,
        predicted_error=error,
        low=max(0.0, error - _DEVIATIONS * deviation),
        high=min(1.0, error + _DEVIATIONS * deviation),
        cost_usd=float(pool.cost_usd_m[i]),
        reason=reason,
    )


def _allowed(pool: Candidates, request: Request) -> _Flags:
    """Which models may be chosen; each of them has a price."""
    if not pool.names:
        raise RoutingError("the pool of the router is empty; onboard a model")
    left = np.ones(len(pool.names), np.bool_)
    for what, listed in (("allow", request.allow), ("deny", request.deny)):
        if listed:
            _refuse_unknown(what, listed, pool.names)
            left &= np.array([(name in listed) is (what == "allow") for name in pool.names])
    if not left.any():
        unlisted = sorted(set(pool.names) - set(request.allow)) if request.allow else []
        removed = [f"deny removes {', '.join(sorted(request.deny))}"] if request.deny else []
        removed += [f"allow leaves out {', '.join(unlisted)}"] if unlisted else []
        raise RoutingError(f"no model is left: {'; '.join(removed)}; allow another one")
    unpriced = np.flatnonzero(left & ~np.isfinite(pool.cost_usd_m))
    if unpriced.size:
        raise RoutingError(
            f"the price of {pool.names[unpriced[0]]!r} is {pool.cost_usd_m[unpriced[0]]}, and unknown is not "
            "free; give its price, or deny the model"
        )
    return left


def _refuse_unknown(what: str, listed: Sequence[str], names: Sequence[str]) -> None:
    for name in listed:
        if name not in names:
            raise RoutingError(f"{what} names {name!r}, which is not in the pool: {', '.join(sorted(names))}")


def _usd_weight(request: Request, dearest_usd: float) -> float:
    """How much error one USD is worth; budgets and floors weigh nothing."""
    if request.lambda_usd is not None:
        return request.lambda_usd
    return (request.lambda_ or 0.0) / (dearest_usd if dearest_usd > 0 else 1.0)


def _chosen(pool: Candidates, left: _Flags, scores: Floats, request: Request) -> tuple[int, str]:
    """The winner and the reason; the scores of budgets and floors are the predicted errors."""
    cost = pool.cost_usd_m
    if request.budget_usd is not None:
        within = left & (cost <= request.budget_usd)
        if not within.any():
            cheapest = _first(pool, left, cost, cost)
            raise RoutingError(
                f"no model answers for {request.budget_usd:g} USD; the cheapest, {pool.names[cheapest]!r}, "
                f"costs {cost[cheapest]:g} USD: raise the budget"
            )
        best = _first(pool, within, scores, cost)
        return best, f"the best predicted of those within {request.budget_usd:g} USD"
    if request.quality is not None:
        good = left & (1.0 - pool.errors_m >= request.quality)
        if good.any():
            best = _first(pool, good, cost, pool.errors_m)
            return best, f"the cheapest with a predicted quality of {request.quality:g}"
        best = _first(pool, left, scores, cost)
        return best, f"the best predicted; none reaches a quality of {request.quality:g}"
    reason = "the least predicted error"
    if request.lambda_usd is not None:
        reason = f"the least error + {request.lambda_usd:g} * cost in USD"
    elif request.lambda_:
        reason = f"the least error + {request.lambda_:g} * cost relative to the dearest"
    return _first(pool, left, scores, cost), reason


def _first(pool: Candidates, among: _Flags, key: Floats, then: Floats) -> int:
    """The model of the least key; of equals the least in what comes then, then by name."""
    keys = np.where(among, key, np.inf)
    equal = np.flatnonzero(keys == keys.min())
    return int(min(equal, key=lambda i: (then[i], pool.names[i])))
