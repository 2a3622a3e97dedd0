"""Learning from answers in service: a model's error in a cluster, kept as counts that decay.

What is known of a model in a cluster, a mean and its deviation, is read as a Beta distribution, which is as
many answers as it is worth. Each new answer lets all that came before count a little less, by half for
`half_life` answers, and adds itself; so a model that changes is followed, and one that does not is known as
if from `half_life / log 2` answers. (Discounting: West and Harrison, Bayesian Forecasting and Dynamic Models,
1997, chapter 6.) Answers in one cluster say nothing of another. What an answer costs is followed in the same
way: a mean that is worth as many answers as the error is.

Which model was asked may depend on the cluster, and in no other way on the prompt: then the answers that a
model gave in a cluster are a fair sample of that cluster, and need no weights. A model that is never asked
is never learned of: that is what exploring is for.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Floats, Integers
from modelyard.routing.profiles import Profiles

#: A mean of exactly 0 or 1 would be a certainty that nothing changes.
_EDGE = 0.005
_LEAST_WORTH = 1.0


def learned(
    models: Profiles,
    name: str,
    clusters_n: Integers,
    errors_n: Floats,
    *,
    half_life: float,
    costs_usd_n: Floats | None = None,
) -> Profiles:
    """The profiles after answers of one model; all others are the very same.

    Args:
        models: What was known.
        name: The model that answered.
        clusters_n: The clusters of its prompts, in the order of time.
        errors_n: Of its answers, in [0, 1]; a failed answer is 1.
        half_life: Answers in a cluster after which what was known counts half.
        costs_usd_n: Of its answers; NaN where one is not known. Without it costs stay as they are.

    Raises:
        RoutingError: There is no such model, or a value is out of range.
    """
    row = models.row(name)
    if not half_life > 0:
        raise RoutingError(f"a half-life of {half_life} answers is none; give a number above 0")
    if errors_n.size and not (errors_n.min() >= 0 and errors_n.max() <= 1):
        raise RoutingError(
            f"an error of {name!r} is not within 0 and 1, but {errors_n.min():g} to {errors_n.max():g}; "
            "give 1 - score"
        )
    costs_n = _checked_costs(name, costs_usd_n, len(errors_n))
    psi_mk, sd_mk, cost_mk = models.psi_mk.copy(), models.sd_mk.copy(), models.cost_usd_mk.copy()
    answers_mk, cost_m = models.answers_mk.copy(), models.cost_usd_m.copy()
    for cluster in np.unique(clusters_n):
        here = clusters_n == cluster
        mean, before = _beta(psi_mk[row, cluster], sd_mk[row, cluster], most=half_life / math.log(2))
        psi, worth = _followed(mean, before, errors_n[here], half_life)
        psi_mk[row, cluster] = psi
        sd_mk[row, cluster] = math.sqrt(max(psi * (1 - psi), _EDGE * (1 - _EDGE)) / (worth + 1))
        answers_mk[row, cluster] += int(here.sum())
        told = costs_n[here & ~np.isnan(costs_n)]
        cost_mk[row, cluster], _ = _followed(float(cost_mk[row, cluster]), before, told, half_life)
    moved_k = cost_mk[row] - models.cost_usd_mk[row]
    cost_m[row] += float(answers_mk[row] @ moved_k) / max(int(answers_mk[row].sum()), 1)
    return replace(
        models, psi_mk=psi_mk, sd_mk=sd_mk, answers_mk=answers_mk, cost_usd_mk=cost_mk, cost_usd_m=cost_m
    )


def _checked_costs(name: str, costs_usd_n: Floats | None, answers: int) -> Floats:
    """As given, NaN where nothing is; raises `RoutingError` where one cannot be."""
    if costs_usd_n is None:
        return np.full(answers, math.nan)
    wrong = costs_usd_n[(costs_usd_n < 0) | np.isinf(costs_usd_n)]
    if wrong.size:
        raise RoutingError(
            f"an answer of {name!r} costs {wrong[0]:g} USD; give a number of at least 0, or none where it is "
            "not known"
        )
    if len(costs_usd_n) != answers:
        raise RoutingError(f"{len(costs_usd_n)} costs of {answers} answers of {name!r}; give one for each")
    return costs_usd_n


def _followed(mean: float, worth: float, values_n: Floats, half_life: float) -> tuple[float, float]:
    """A mean that is worth so many values, and that worth, after more values."""
    # each value is followed by those after it, which let it count less
    weights = 0.5 ** (np.arange(len(values_n) - 1, -1, -1) / half_life)
    before = worth * 0.5 ** (len(values_n) / half_life)
    after = before + float(weights.sum())
    return (mean * before + float(weights @ values_n)) / after, after


def _beta(psi: float, sd: float, *, most: float) -> tuple[float, float]:
    """The mean, and the answers that it and a deviation are worth as a Beta distribution."""
    mean = min(max(float(psi), _EDGE), 1 - _EDGE)
    worth = mean * (1 - mean) / max(float(sd) ** 2, 1e-12) - 1
    return mean, min(max(worth, _LEAST_WORTH), most)
