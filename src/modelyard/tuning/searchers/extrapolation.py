"""Hyperband that also stops what cannot get as good as the best: by extrapolating learning curves.

The criterion is that of Domhan, Springenberg and Hutter, "Speeding Up Automatic Hyperparameter Optimization
of Deep Neural Networks by Extrapolation of Learning Curves", IJCAI 2015, section 3.3: a trial ends when, by
its curve, it is not to be expected to come up to the best result of a whole training. Of their eleven
families of curves it uses the power law a + b t^-c alone, fitted by least squares instead of by sampling, and
for what may be hoped the lowest end among all exponents c that fit well, less twice the distance of the
points from their curve. Exponents below 0 are among them: a curve that falls steadily may go on so. Nothing
is said before a trial has `least` points, and nothing while no training is whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from modelyard.core.faults import Section
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.brackets import LENGTH
from modelyard.tuning.searchers.halving import HyperbandSearcher, value_at
from modelyard.tuning.trial import Trial

_LEAST = 5
#: Exponents that are tried: from straight lines to curves that are flat at once.
_EXPONENTS = (-1.0, -0.75, -0.5, -0.25, *(0.05 * 1.2**k for k in range(23)))
#: An exponent fits well where its squares are no more than this times those of the best.
_AS_GOOD = 2.0
_DEVIATIONS = 2.0


def hoped_for(curve: Mapping[int, float], step: int) -> float:
    """The lowest value that a falling curve may be hoped to have at a later step.

    Args:
        curve: Three values at least, by step.
        step: Where the curve is to end.
    """
    at = np.array(sorted(curve), dtype=np.float64)
    values = np.array([curve[int(each)] for each in at])
    fits = [_fitted(at, values, step, c) for c in _EXPONENTS]
    nearest = min(range(len(fits)), key=lambda k: fits[k][0])
    best = fits[nearest][0]
    spread = math.sqrt(best / (len(values) - 2))
    floor = 1e-12 * float(np.abs(values).max()) ** 2
    # the true exponent lies between the best one tried and one beside it
    good = [k for k, (squares, _) in enumerate(fits) if squares <= _AS_GOOD * best + floor]
    ends = [fits[k][1] for k in {*good, *range(max(0, nearest - 1), min(len(fits), nearest + 2))}]
    return float(min(min(ends) - _DEVIATIONS * spread, values.min()))


def _fitted(
    at: np.ndarray[tuple[int], np.dtype[np.float64]], values: np.ndarray[tuple[int], np.dtype[np.float64]],
    step: int, exponent: float,
) -> tuple[float, float]:  # fmt: skip
    """The sum of squares of the best a + b t^-c with this c, and its value at a step."""
    bent = at**-exponent
    centred = bent - bent.mean()
    b = float(centred @ values) / float(centred @ centred)
    a = float(values.mean()) - b * float(bent.mean())
    return float(np.square(values - a - b * bent).sum()), a + b * step**-exponent


class ExtrapolatingSearcher(HyperbandSearcher):
    """Hyperband with the criterion of extrapolation between its rungs."""

    name = "hyperband_es"

    def __init__(self, settings: SearcherSettings) -> None:
        options = dict(settings.options)
        self._least = int(str(options.pop("least", _LEAST)))
        super().__init__(replace(settings, options=tuple(options.items())))

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """See `Searcher.keeps`."""
        if not super().keeps(trials, number, step):
            return False
        curve = {at: value for at, value in self._whole_curve(trials, number).items() if at <= step}
        if len(curve) < self._least or step not in curve or step >= self._rungs.high:
            return True
        finals = (
            value_at(t, self._rungs.high) for t in trials if t.number != number and t.values is not None
        )
        best = min((self._sign * value for value in finals if value is not None), default=math.inf)
        return hoped_for({at: self._sign * v for at, v in curve.items()}, self._rungs.high) <= best

    def _whole_curve(self, trials: Sequence[Trial], number: int) -> dict[int, float]:
        """A trial's curve, behind those of the trials from whose checkpoints it went on."""
        known = {trial.number: trial for trial in trials}
        curve: dict[int, float] = {}
        mine: Trial | None = known[number]
        while mine is not None:
            curve = {**mine.curve, **curve}
            mine = None if mine.parent is None else known.get(mine.parent)
        return curve


def _options(section: Section) -> Options:
    cycles: Options = (("cycles", section.integer("cycles", 1, low=1)),) if section.has("cycles") else ()
    sampler = section.choice("sampler", "random", ("random", "tpe"))
    return (("least", section.integer("least", _LEAST, low=3)), ("sampler", sampler), *cycles)


def _searcher(settings: SearcherSettings) -> Searcher:
    return ExtrapolatingSearcher(settings)


HYPERBAND_ES = Algorithm(name="hyperband_es", make=_searcher, options=_options, rungs=True, changeable=LENGTH)
