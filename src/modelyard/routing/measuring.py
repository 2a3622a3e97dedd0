"""A router measured on answers to prompts that it was not fitted on.

It decides as it would in service, by its own prices; what is counted is what the answers cost and whether
they were right. An answer whose cost is not known counts with the mean of its model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answer_table import AnswerTable
from modelyard.routing.answers import Floats
from modelyard.routing.deferral import LAMBDAS, Curve, Sweep
from modelyard.routing.router import Router

_CHUNK = 256
#: From the cheapest always, whatever the prices, to where cost does not count.
_WEIGHTS = (1e9, *LAMBDAS)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What a router predicts of Q prompts and what happened; models in the order of their names."""

    names: tuple[str, ...]
    examples: tuple[str, ...]
    # Of the results; prompts that not every model answered are left out.
    left_out: int
    # Predicted errors, and predicted costs relative to the dearest of the router's fit, [M, Q].
    errors_mq: Floats
    cost_mq: Floats
    # The mean predicted error of each model over the fit prompts, and its mean cost, as for `cost_mq`; [M].
    mean_errors_m: Floats
    mean_cost_m: Floats
    # In truth, [M, Q].
    quality_mq: Floats
    spent_usd_mq: Floats

    @property
    def spent_usd_m(self) -> Floats:
        """What an answer of each model cost in the mean, [M]."""
        return np.asarray(self.spent_usd_mq.mean(axis=1), np.float64)

    @property
    def best_single(self) -> float:
        """The mean quality of the best single model."""
        return float(self.quality_mq.mean(axis=1).max())

    def router(self, dearest_usd: float, lambdas: Sequence[float] = _WEIGHTS) -> Sweep:
        """Each prompt to the least predicted error + lambda * predicted cost; of equals the cheaper."""
        return self._sweep(self.errors_mq, self.cost_mq, dearest_usd, lambdas)

    def zero_router(self, dearest_usd: float) -> Sweep:
        """Models mixed without looking at prompts, by their mean predicted errors."""
        same = np.repeat(self.mean_errors_m[:, None], len(self.examples), axis=1)
        return self._sweep(same, self.mean_cost_m, dearest_usd, _WEIGHTS)

    def oracle(self, dearest_usd: float) -> Sweep:
        """Each prompt to the cheapest model that is right on it."""
        return self._sweep(1.0 - self.quality_mq, self.spent_usd_m / dearest_usd, dearest_usd, _WEIGHTS)

    def _sweep(self, errors_mq: Floats, cost: Floats, dearest_usd: float, lambdas: Sequence[float]) -> Sweep:
        spent_mq = self.spent_usd_mq / dearest_usd
        return Sweep.of(errors_mq, cost, lambdas, quality_mq=self.quality_mq, spent_mq=spent_mq)


def held_out(router: Router, table: AnswerTable, also: Sequence[str] = ()) -> HeldOut:
    """What a router makes of the prompts that all its models, and the models `also`, have answered.

    Raises:
        RoutingError: The router was fitted on one of the prompts, a model has no answer or no price, no
            prompt was answered by all, or every model is free.
    """
    refuse_empty(router)
    answers = table.answers
    lost = [
        name for name in {**dict.fromkeys(router.names), **dict.fromkeys(also)} if name not in answers.models
    ]
    if lost:
        raise RoutingError(
            f"the held-out results have no answer of {', '.join(lost)}; add them, or remove the model"
        )
    seen = set(answers.examples) & set(router.pool.examples)
    if seen:
        raise RoutingError(
            f"the router was fitted on {min(seen)!r} and {len(seen) - 1} more of these prompts; give others"
        )
    needed = sorted({answers.models.index(name) for name in (*router.names, *also)})
    told = np.flatnonzero(~np.isnan(answers.errors_mn[needed]).any(axis=0))
    if not told.size:
        raise RoutingError(
            "no prompt of the held-out results was answered by every model; add the missing rows"
        )
    own = answers.of_models([answers.models.index(name) for name in router.names]).to_prompts(told)
    means = own.mean_cost_usd()
    if means.max() <= 0:
        raise RoutingError("every model costs 0 USD, so that quality over cost is no question; give prices")
    dearest = router.pool.dearest_usd if router.pool.dearest_usd > 0 else 1.0
    predicted = router.predicted([table.prompts[i] for i in told])
    return HeldOut(
        names=router.names,
        examples=own.examples,
        left_out=len(table.prompts) - len(told),
        errors_mq=predicted.errors_mq,
        cost_mq=predicted.cost_usd_mq / dearest,
        mean_errors_m=router.mean_errors(),
        mean_cost_m=router.models.cost_usd_m / dearest,
        quality_mq=1.0 - own.errors_mn,
        spent_usd_mq=np.where(np.isnan(own.cost_usd_mn), means[:, None], own.cost_usd_mn),
    )


def refuse_empty(router: Router) -> None:
    """Raises `RoutingError` where a router has no model."""
    if not router.names:
        raise RoutingError("the pool of the router is empty, so that nothing is predicted; onboard a model")


def bootstrap(prompts: int, draws: int, seed: int) -> list[Floats]:
    """How often each prompt stands in each of the samples, in parts of at most 256 of them; [b, Q]."""
    chance, even = np.random.default_rng(seed), np.full(prompts, 1.0 / prompts)
    sizes = [min(_CHUNK, draws - begin) for begin in range(0, draws, _CHUNK)]
    return [chance.multinomial(prompts, even, size=size).astype(np.float64) for size in sizes]


def band(sweep: Sweep, grid: Floats, *, draws: int, seed: int) -> tuple[Floats, Floats]:
    """The 90 % range of a curve's quality at each cost of a grid, over samples of the prompts."""
    drawn = [
        Curve.of(cost, quality).at(grid)
        for counts in bootstrap(sweep.quality_lq.shape[1], draws, seed)
        for cost, quality in zip(*sweep.drawn(counts), strict=True)
    ]
    low, high = np.quantile(np.array(drawn), (0.05, 0.95), axis=0)
    return low, high
