"""Learning from answers in service: a model's error in a cluster, kept as counts that decay.

What is known of a model in a cluster, a mean and its deviation, is read as a Beta distribution, which is as
many answers as it is worth. Each new answer lets all that came before count a little less, by half for
`half_life` answers, and adds itself; so a model that changes is followed, and one that does not is known as
if from `half_life / log 2` answers. (Discounting: West and Harrison, Bayesian Forecasting and Dynamic Models,
1997, chapter 6.) Answers in one cluster say nothing of another.

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
    models: Profiles, name: str, clusters_n: Integers, errors_n: Floats, *, half_life: float
) -> Profiles:
    """The profiles after answers of one model; all others are the very same.

    Args:
        models: What was known.
        name: The model that answered.
        clusters_n: The clusters of its prompts, in the order of time.
        errors_n: Of its answers, in [0, 1]; a failed answer is 1.
        half_life: Answers in a cluster after which what was known counts half.

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
    psi_mk, sd_mk = models.psi_mk.copy(), models.sd_mk.copy()
    answers_mk = models.answers_mk.copy()
    for cluster in np.unique(clusters_n):
        errors = errors_n[clusters_n == cluster]
        wrong, worth = _counts(psi_mk[row, cluster], sd_mk[row, cluster], most=half_life / math.log(2))
        # each answer is followed by those after it, which let it count less
        weights = 0.5 ** (np.arange(len(errors) - 1, -1, -1) / half_life)
        faded = 0.5 ** (len(errors) / half_life)
        wrong = wrong * faded + float(weights @ errors)
        worth = worth * faded + float(weights.sum())
        psi = wrong / worth
        psi_mk[row, cluster] = psi
        sd_mk[row, cluster] = math.sqrt(max(psi * (1 - psi), _EDGE * (1 - _EDGE)) / (worth + 1))
        answers_mk[row, cluster] += len(errors)
    return replace(models, psi_mk=psi_mk, sd_mk=sd_mk, answers_mk=answers_mk)


def _counts(psi: float, sd: float, *, most: float) -> tuple[float, float]:
    """Wrong answers and all answers that a mean and a deviation are worth as a Beta distribution."""
    mean = min(max(float(psi), _EDGE), 1 - _EDGE)
    worth = mean * (1 - mean) / max(float(sd) ** 2, 1e-12) - 1
    worth = min(max(worth, _LEAST_WORTH), most)
    return mean * worth, worth
