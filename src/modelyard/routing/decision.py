"""Which model a request goes to: a pure function of predicted errors, prices and what is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Floats
from modelyard.routing.exploration import Exploration
from modelyard.routing.facts import Traits

#: Half the width of the interval that is told of a predicted error: 90 % of a normal distribution.
_DEVIATIONS = 1.645

_GROUPS = ("online", "offline")
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
    # What the model must be known to have: room for so many tokens, tools, vision, and no more latency.
    context_tokens: int | None = None
    tools: bool = False
    vision: bool = False
    # ELPA's group that the model must be known to belong to: online or offline.
    group: str | None = None
    latency_s: float | None = None
    latency_p95_s: float | None = None
    # Who answered before in this conversation: it stays unless another is better by more than the margin.
    previous: str | None = None
    margin: float = 0.0
    # How new models are tried; not within a conversation.
    explore: Exploration | None = None

    def __post_init__(self) -> None:
        fields = ("lambda_", "lambda_usd", "budget_usd", "quality")
        given = {n.rstrip("_"): v for n in fields if (v := getattr(self, n)) is not None}
        if len(given) > 1:
            raise RoutingError(f"a request has {' and '.join(given)}; give one of them")
        for name, value in given.items():
            if not math.isfinite(value) or value < 0 or (name == "quality" and value > 1):
                within = "from 0 to 1" if name == "quality" else "of at least 0"
                raise RoutingError(f"{name} of a request is {value}; give a number {within}")
        for name in ("context_tokens", "latency_s", "latency_p95_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RoutingError(f"{name} of a request is {value}; give a number above 0")
        if self.group not in (None, *_GROUPS):
            raise RoutingError(f"group of a request is {self.group!r}; give one of {', '.join(_GROUPS)}")
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise RoutingError(f"margin of a request is {self.margin}; give a number of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What is predicted of each model for one prompt; arrays of [M]."""

    names: tuple[str, ...]
    errors_m: Floats
    # The standard deviations of what is not known about the errors.
    sd_m: Floats
    cost_usd_m: Floats
    # What else is known of them; None is nothing.
    traits: Traits | None = None


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
    # Whether it was by lot, and the chance that this model had to be chosen: 1 where nothing is explored.
    explored: bool = False
    propensity: float = 1.0


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
    wish = _wish(pool, left, scores, request)
    i, reason = _first(pool, wish), wish.reason
    if request.previous is not None:
        i, reason = _stuck(pool, wish, i, request, dearest_usd)
    lot = _explored(pool, left, i, request)
    if lot.chosen is not None:
        i, reason = lot.chosen, lot.reason
    error, told = float(pool.errors_m[i]), scores.tolist()
    low, high = interval(error, float(pool.sd_m[i]))
    return Decision(
        chosen=pool.names[i],
        score=told[i],
        scores=dict(zip(pool.names, told, strict=True))
        if left.all()
        else {pool.names[j]: told[j] for j in np.flatnonzero(left)},
        cluster=cluster,
        predicted_error=error,
        low=float(low),
        high=float(high),
        cost_usd=float(pool.cost_usd_m[i]),
        reason=reason,
        explored=lot.chosen is not None,
        propensity=lot.propensity,
    )


def interval(error: Floats | float, deviation: Floats | float) -> tuple[Floats, Floats]:
    """A 90 % interval of predicted errors, within what errors can be."""
    reach = _DEVIATIONS * np.asarray(deviation, np.float64)
    return np.maximum(0.0, error - reach), np.minimum(1.0, error + reach)


def why_not(pool: Candidates, request: Request) -> dict[str, str]:
    """Why models could not be chosen, by name; those that could are not in it."""
    told: dict[str, str] = {}
    for rule in _rules(pool, request):
        for i in np.flatnonzero(rule.removed_m):
            told.setdefault(pool.names[i], rule.why)
    if request.budget_usd is not None:
        for i in np.flatnonzero(pool.cost_usd_m > request.budget_usd):
            told.setdefault(pool.names[i], "over the budget")
    if request.quality is not None:
        good = 1.0 - pool.errors_m >= request.quality
        if any(good[i] and name not in told for i, name in enumerate(pool.names)):
            for i in np.flatnonzero(~good):
                told.setdefault(pool.names[i], "below the quality asked for")
    return told


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """Something asked for that removes models: how that is told of several, and of one."""

    removes: str
    why: str
    removed_m: _Flags


def _rules(pool: Candidates, request: Request) -> Iterator[_Rule]:
    if request.deny:
        _refuse_unknown("deny", request.deny, pool.names)
        removed = np.array([name in request.deny for name in pool.names], np.bool_)
        yield _Rule(removes="deny removes", why="denied", removed_m=removed)
    if request.allow:
        _refuse_unknown("allow", request.allow, pool.names)
        removed = np.array([name not in request.allow for name in pool.names], np.bool_)
        yield _Rule(removes="allow leaves out", why="not among the allowed", removed_m=removed)
    if request.group is not None:
        online_m = pool.traits.facts["online"] if pool.traits else np.full(len(pool.names), np.nan)
        unknown, told = np.isnan(online_m), f"the group {request.group}"
        other = ~unknown & (online_m != float(request.group == _GROUPS[0]))
        yield _Rule(removes="the group is not known of", why="its group is not known", removed_m=unknown)
        yield _Rule(removes=f"{told} leaves out", why=f"it is not of {told}", removed_m=other)
    for name, limit, what in _needs(request):
        known_m = pool.traits.facts[name] if pool.traits else np.full(len(pool.names), np.nan)
        unknown = np.isnan(known_m)
        short = known_m > limit if name.startswith("latency") else known_m < limit
        yield _Rule(removes=f"{what} is not known of", why=f"{what} is not known of it", removed_m=unknown)
        yield _Rule(removes=f"{what} is too much for", why=f"{what} is too much for it", removed_m=short)


def _needs(request: Request) -> Iterator[tuple[str, float, str]]:
    """The facts that are asked for, how much of each, and how that is told."""
    if request.context_tokens is not None:
        told = f"a context of {request.context_tokens:,} tokens"
        yield "context_tokens", float(request.context_tokens), told
    if request.tools:
        yield "tools", 1.0, "the use of tools"
    if request.vision:
        yield "vision", 1.0, "vision"
    if request.latency_s is not None:
        yield "latency_s", request.latency_s, f"an answer within {request.latency_s:g} s in the mean"
    if request.latency_p95_s is not None:
        told = f"an answer within {request.latency_p95_s:g} s in 95 of 100"
        yield "latency_p95_s", request.latency_p95_s, told


def _allowed(pool: Candidates, request: Request) -> _Flags:
    """Which models may be chosen; each of them has a price."""
    if not pool.names:
        raise RoutingError("the pool of the router is empty; onboard a model")
    left, rules = np.ones(len(pool.names), np.bool_), list(_rules(pool, request))
    for rule in rules:
        left &= ~rule.removed_m
    if not left.any():
        told = [
            f"{rule.removes} {', '.join(sorted(pool.names[i] for i in np.flatnonzero(rule.removed_m)))}"
            for rule in rules
            if rule.removed_m.any()
        ]
        raise RoutingError(f"no model is left: {'; '.join(told)}; ask for less, or allow another one")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """Among whom the least key wins; of equals the least in what comes `then`, then by name."""

    among_m: _Flags
    key_m: Floats
    then_m: Floats
    reason: str
    # Whether keys are USD, not error.
    by_cost: bool = False


def _wish(pool: Candidates, left: _Flags, scores: Floats, request: Request) -> _Wish:
    """What is wished for; the scores of budgets and floors are the predicted errors."""
    cost = pool.cost_usd_m
    if request.budget_usd is not None:
        within = left & (cost <= request.budget_usd)
        if not within.any():
            cheapest = _first(pool, _Wish(among_m=left, key_m=cost, then_m=cost, reason=""))
            raise RoutingError(
                f"no model answers for {request.budget_usd:g} USD; the cheapest, {pool.names[cheapest]!r}, "
                f"costs {cost[cheapest]:g} USD: raise the budget"
            )
        reason = f"the best predicted of those within {request.budget_usd:g} USD"
        return _Wish(among_m=within, key_m=scores, then_m=cost, reason=reason)
    if request.quality is not None:
        good = left & (1.0 - pool.errors_m >= request.quality)
        if good.any():
            reason = f"the cheapest with a predicted quality of {request.quality:g}"
            return _Wish(among_m=good, key_m=cost, then_m=pool.errors_m, reason=reason, by_cost=True)
        reason = f"the best predicted; none reaches a quality of {request.quality:g}"
        return _Wish(among_m=left, key_m=scores, then_m=cost, reason=reason)
    reason = "the least predicted error"
    if request.lambda_usd is not None:
        reason = f"the least error + {request.lambda_usd:g} * cost in USD"
    elif request.lambda_:
        reason = f"the least error + {request.lambda_:g} * cost relative to the dearest"
    return _Wish(among_m=left, key_m=scores, then_m=cost, reason=reason)


def _first(pool: Candidates, wish: _Wish) -> int:
    keys = np.where(wish.among_m, wish.key_m, np.inf)
    equal = np.flatnonzero(keys == keys.min())
    if len(equal) > 1:
        then = wish.then_m[equal]
        equal = equal[then == then.min()]
    return int(equal[0]) if len(equal) == 1 else int(min(equal, key=pool.names.__getitem__))


def _stuck(pool: Candidates, wish: _Wish, best: int, request: Request, dearest_usd: float) -> tuple[int, str]:
    """The previous model unless the best is better by more than the margin; costs count by the dearest."""
    name, told = request.previous, f"{request.previous!r} answered before"
    before = pool.names.index(name) if name in pool.names else None
    if before is None or not wish.among_m[before]:
        return best, f"{wish.reason}; {told} and cannot be chosen"
    gap = float(wish.key_m[before] - wish.key_m[best])
    if wish.by_cost and dearest_usd > 0:
        gap /= dearest_usd
    if gap > request.margin:
        return best, f"{wish.reason}; {told} and is worse by {gap:.4f}, more than {request.margin:g}"
    return before, f"{told} and is worse than the best by {gap:.4f}, not more than {request.margin:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lot:
    """What exploring makes of a choice; `chosen` is None where it stands."""

    chosen: int | None = None
    propensity: float = 1.0
    reason: str = ""


def _explored(pool: Candidates, left: _Flags, best: int, request: Request) -> _Lot:
    """A new model by lot: lists, facts and budgets hold for it, weights and floors do not."""
    explore = request.explore
    if explore is None or request.previous is not None:
        return _Lot()
    if pool.traits is None:
        raise RoutingError("it is not known how many answers models have given; give it, or do not explore")
    new_m = left & (pool.traits.answers_m < explore.answers)
    if request.budget_usd is not None:
        new_m &= pool.cost_usd_m <= request.budget_usd
    count = int(new_m.sum())
    drawn = explore.drawn(count)
    chosen = best
    if drawn is not None:
        chosen = sorted(np.flatnonzero(new_m).tolist(), key=pool.names.__getitem__)[drawn]
    chance = explore.propensity(count, new=bool(new_m[chosen]), best=chosen == best)
    if drawn is None:
        return _Lot(propensity=chance)
    told = f"explored: one of {count} models with fewer than {explore.answers} answers, by lot"
    return _Lot(chosen=chosen, propensity=chance, reason=told)
