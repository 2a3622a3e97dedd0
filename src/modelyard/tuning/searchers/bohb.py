"""BOHB: Hyperband's brackets, with new points from densities of good and bad ones.

Falkner, Klein and Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018,
arXiv 1807.01774, algorithms 1 and 2, with the defaults of its authors' HpBandSter. Results of different
budgets are never mixed: the model is that of the largest budget at which enough configurations have a
result. A third of the points is drawn at random; the others are the best of 64 that were drawn around the
good ones with bandwidths three times as wide, by the ratio of the two densities.

One default is another: bandwidths are at least 0.05 of a range. With 0.001, as in HpBandSter, the good points
soon lie so near each other that nothing but their middle is proposed any more (`least_bandwidth`).

Failed configurations are counted among the bad ones, and not among the results that a model needs. The
places of running ones are avoided by chance alone, as in the paper: each point is drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.faults import Section
from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.brackets import LENGTH, most_halvings
from modelyard.tuning.searchers.density import Density
from modelyard.tuning.searchers.halving import HyperbandSearcher, configurations
from modelyard.tuning.searchers.optuna_samplers import RANDOM, trial_seed
from modelyard.tuning.searchers.scaling import coordinate, fixed, inside, nearest, place
from modelyard.tuning.trial import Proposal, Trial, TrialState, sign_of

Floats = NDArray[np.float64]
_TOP_PERCENT, _SAMPLES, _RANDOM, _WIDER, _BANDWIDTH = 15, 64, 1 / 3, 3.0, 0.05
#: Densities below this count as this where they are divided.
_LEAST = 1e-32


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Where the good and the bad ones are, by the results of one budget."""

    budget: int
    good: Density
    bad: Density


class DensityPoints:
    """Proposes points from the densities of good and bad ones at the largest budget with enough of them."""

    def __init__(self, settings: SearcherSettings, *, budgets: Sequence[int]) -> None:
        self._settings, self._budgets = settings, sorted(budgets, reverse=True)
        self._fixed = fixed(settings.dimensions)
        self._free = tuple(each for each in settings.dimensions if each.name not in self._fixed)
        options: Mapping[str, Any] = dict(settings.options)
        self._least = max(len(self._free) + 1, int(options.get("least", 0)))
        self._top = int(options.get("top_percent", _TOP_PERCENT))
        self._samples = int(options.get("samples", _SAMPLES))
        self._random = float(options.get("random", _RANDOM))
        self._wider = float(options.get("wider", _WIDER))
        self._bandwidth = float(options.get("least_bandwidth", _BANDWIDTH))
        self._sign = sign_of(settings.directions[0])
        self._points = RANDOM(replace(settings, options=(), rungs=None))

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """A point from the model, or a random one."""
        rng = np.random.default_rng(trial_seed(self._settings.seed, number))
        told = [trial for trial in trials if inside(self._settings.dimensions, trial.point)]
        found = None if not self._free or rng.random() < self._random else self.model(told)
        if found is None:
            return self._points.propose(trials, number)
        place_d = self._best(found.good, found.bad, rng)
        point = {**self._fixed, **{d.name: _at(d, x) for d, x in zip(self._free, place_d, strict=True)}}
        whole = {each.name: point[each.name] for each in self._settings.dimensions}
        return Proposal(point=whole, source="bohb")

    def model(self, trials: Sequence[Trial]) -> Model | None:
        """The model of the largest budget that has enough results; None where none has."""
        members = configurations(trials)
        failed = [trial.point for trial in trials if trial.state is TrialState.FAILED]
        for budget in self._budgets:
            found = [result for each in members if (result := each.result(budget)) is not None]
            found.sort(key=lambda each: (_beyond(each[1]), self._sign * each[0], each[1].number))
            good = max(self._least, self._top * len(found) // 100)
            if len(found) - good >= self._least:
                points = [trial.point for _, trial in found]
                bad = self._density(points[good:] + failed)
                return Model(budget=budget, good=self._density(points[:good]), bad=bad)
        return None

    def _density(self, points: Sequence[Point]) -> Density:
        data = np.array([[_from(each, point[each.name]) for each in self._free] for point in points])
        levels = tuple(len(each.choices) if each.kind == "choice" else 0 for each in self._free)
        return Density.fitted(data, levels, least=self._bandwidth)

    def _best(self, good: Density, bad: Density, rng: np.random.Generator) -> Floats:
        drawn = np.array([good.drawn(rng, wider=self._wider) for _ in range(self._samples)])
        ratio = np.maximum(bad.at(drawn), _LEAST) / np.maximum(good.at(drawn), _LEAST)
        best: Floats = drawn[int(np.argmin(ratio))]
        return best


class BOHBSearcher(HyperbandSearcher):
    """Hyperband with points from a model."""

    name = "bohb"

    def __init__(self, settings: SearcherSettings) -> None:
        super().__init__(replace(settings, options=_kept(settings.options, "cycles")))
        rungs = self._rungs
        budgets = [rungs.high // rungs.eta**k for k in range(most_halvings(rungs) + 1)]
        self._model = DensityPoints(settings, budgets=budgets)

    def begun(self, trials: Sequence[Trial], number: int, *, budget: int) -> Proposal | None:
        """A new configuration that begins with a budget; without promotion it may run to the end."""
        proposal = self._model.propose(trials, number)
        if proposal is None:
            return None
        given = budget if self._rungs.promote else self._rungs.high
        return replace(proposal, source=self.name, budget=given)


def _kept(options: Options, *names: str) -> Options:
    return tuple((name, value) for name, value in options if name in names)


def _from(dimension: Dimension, value: Coordinate) -> float:
    if dimension.kind == "choice":
        return float(dimension.choices.index(str(value)))
    return place(dimension, value)


def _at(dimension: Dimension, value: float) -> Coordinate:
    return coordinate(dimension, round(value)) if dimension.kind == "choice" else nearest(dimension, value)


def _beyond(trial: Trial) -> float:
    return math.fsum(max(0.0, part) for part in trial.excess)


def _options(section: Section) -> Options:
    """Those of the paper: N_min, q, N_s, the share of random points and b_w; and Hyperband's rounds."""
    cycles: Options = (("cycles", section.integer("cycles", 1, low=1)),) if section.has("cycles") else ()
    return (
        ("least", section.integer("least", 0, low=0)),
        ("top_percent", section.integer("top_percent", _TOP_PERCENT, low=1, high=99)),
        ("samples", section.integer("samples", _SAMPLES, low=1, high=100_000)),
        ("random", section.number("random", _RANDOM, above=-1e-9, below=1 + 1e-9)),
        ("wider", section.number("wider", _WIDER, above=0)),
        ("least_bandwidth", section.number("least_bandwidth", _BANDWIDTH, above=0, below=1)),
        *cycles,
    )


def _searcher(settings: SearcherSettings) -> Searcher:
    return BOHBSearcher(settings)


BOHB = Algorithm(name="bohb", make=_searcher, options=_options, rungs=True, changeable=LENGTH)
