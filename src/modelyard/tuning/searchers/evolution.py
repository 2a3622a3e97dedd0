"""CMA-ES over numbers, integers and choices, as `cmaes` has it.

Papers: Hamano et al., "CatCMA with Margin", arXiv 2504.07884, which is CMA-ES where all dimensions are
numbers; restarts with twice the population by Auger and Hansen, "A Restart CMA Evolution Strategy With
Increasing Population Size" (2005).

The state of the strategy is nowhere stored. A proposal notes its generation and from whose number it was
drawn, the first of a generation also which trials the strategy was told before: from these the strategy is
brought up again, in any process. Failed and stopped trials are no part of a generation; it waits for others.
With trials of earlier studies the strategy begins around the best of them instead of the default.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cmaes import CatCMAwM  # type: ignore[import-untyped]

from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm
from modelyard.tuning.searchers.optuna_samplers import trial_seed
from modelyard.tuning.searchers.scaling import coordinate, nearest, place, size
from modelyard.tuning.trial import Proposal, Trial, TrialState, sign_of

_NOTE = "cmaes"
#: Dimensions with more values than these are treated as numbers and rounded.
_MOST_VALUES = 64
#: The first spread, as a share of a dimension's range; the mean keeps this far from the ends.
_SPREAD, _EDGE = 0.2, 0.1
_TIE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """The dimensions by how the strategy draws them; those of one value are in none."""

    numbers: tuple[Dimension, ...]
    integers: tuple[Dimension, ...]
    choices: tuple[Dimension, ...]


class CMAESSearcher:
    """Proposes from a strategy that is brought up from the trials."""

    def __init__(self, settings: SearcherSettings) -> None:
        self._settings = settings
        self._axes = _axes(settings.dimensions)
        # What the strategy was told, generation by generation, and the strategy after it.
        self._grown: tuple[tuple[Any, ...], CatCMAwM] | None = None
        self._sign = sign_of(settings.directions[0])
        self._free = bool(self._axes.numbers or self._axes.integers or self._axes.choices)

    def propose(self, trials: Sequence[Trial], number: int) -> Proposal | None:
        """See `Searcher.propose`."""
        point: dict[str, Coordinate] = {}
        notes: dict[str, Any] = {}
        if self._free:
            mine = {trial.number: trial for trial in trials if _NOTE in trial.notes}
            told = _told(mine.values())
            start = self._start(trials)
            strategy = self._brought_up([[mine[n] for n in numbers] for numbers in told], start)
            complete = [t for t in mine.values() if t.state is TrialState.COMPLETE and _of(t) == len(told)]
            news = complete[: strategy.population_size] if len(complete) >= strategy.population_size else []
            if news:
                told.append([trial.number for trial in news])
                strategy = self._brought_up([[mine[n] for n in numbers] for numbers in told], start)
            notes = {
                _NOTE: {"generation": len(told), "drawn": number, **({"told": told[-1]} if news else {})}
            }
            point = self._point(_drawn(strategy, self._settings.seed, number))
        whole = {d.name: point.get(d.name, coordinate(d, 0) if size(d) == 1 else d.low)
                 for d in self._settings.dimensions}  # fmt: skip
        return Proposal(point=whole, source="cmaes", notes=notes)

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Every trial: this searcher does not judge running ones."""
        return True

    def _start(self, trials: Sequence[Trial]) -> Point | None:
        """Around what the first strategy begins: the best of earlier studies, else the default."""
        earlier = [t for t in trials if t.number < 0 and t.values and t.feasible]
        best = min(earlier, key=lambda t: (self._sign * (t.value or 0.0), t.number), default=None)
        return self._settings.default if best is None else best.point

    def _brought_up(self, generations: list[list[Trial]], start: Point | None) -> CatCMAwM:
        """The strategy after it was told these generations; the caller's to change."""
        begun = tuple((start or {}).items())
        key = (begun, *(tuple((t.number, t.values, t.excess) for t in trials) for trials in generations))
        done, strategy = self._grown or ((), None)
        if strategy is None or key[: len(done)] != done:
            done, strategy = (begun,), self._fresh(0, start)
        strategy = copy.deepcopy(strategy)
        for i in range(len(done), len(key)):
            strategy = self._after(strategy, generations[i - 1])
        self._grown = (key, copy.deepcopy(strategy))
        return strategy

    def _after(self, strategy: CatCMAwM, trials: Sequence[Trial]) -> CatCMAwM:
        """The strategy after one generation, or a new one with twice the population."""
        seed = self._settings.seed
        losses = _losses(trials, self._sign)
        drawn = [_drawn(strategy, seed, int(trial.notes[_NOTE]["drawn"])) for trial in trials]
        strategy.tell(list(zip(drawn, losses, strict=True)))
        # Of choices alone the strategy does not know when to stop.
        stops = bool(self._axes.numbers or self._axes.integers) and strategy.should_stop()
        return self._fresh(2 * strategy.population_size) if stops else strategy

    def _fresh(self, population: int, start: Point | None = None) -> CatCMAwM:
        """A strategy at its start: around a point the first time, anywhere later."""
        axes = self._axes
        gaussian = (*axes.numbers, *axes.integers)
        mean = np.full(len(gaussian), 0.5)
        if population:
            mean = np.random.default_rng([self._settings.seed, population]).uniform(size=len(gaussian))
        elif start is not None:
            mean = np.array([place(each, start[each.name]) for each in gaussian])
        return CatCMAwM(
            x_space=[[0.0, 1.0] for _ in axes.numbers] or None,
            z_space=[_places(each) for each in axes.integers] or None,
            c_space=[size(each) or 1 for each in axes.choices] or None,
            population_size=population or None,
            mean=np.clip(mean, _EDGE, 1 - _EDGE) if gaussian else None,
            cov=np.diag(np.full(len(gaussian), _SPREAD**2)) if gaussian else None,
            seed=self._settings.seed,
        )

    def _point(self, solution: CatCMAwM.Solution) -> dict[str, Coordinate]:
        point: dict[str, Coordinate] = {}
        for i, each in enumerate(self._axes.numbers):
            point[each.name] = nearest(each, float(solution.x[i]))
        for i, each in enumerate(self._axes.integers):
            point[each.name] = coordinate(each, _places(each).index(float(solution.z[i])))
        for i, each in enumerate(self._axes.choices):
            point[each.name] = coordinate(each, int(np.argmax(solution.c[i])))
        return point


def _axes(dimensions: Sequence[Dimension]) -> _Axes:
    counted = [(each, size(each)) for each in dimensions]
    return _Axes(
        numbers=tuple(each for each, count in counted if count is None or _many(each, count)),
        integers=tuple(
            each for each, count in counted
            if each.kind != "choice" and count is not None and 2 < count <= _MOST_VALUES
        ),
        # Two values are a choice, as the authors advise.
        choices=tuple(
            each for each, count in counted
            if count is not None and (count == 2 or (each.kind == "choice" and count > 1))
        ),
    )  # fmt: skip


def _many(dimension: Dimension, count: int) -> bool:
    return dimension.kind != "choice" and count > _MOST_VALUES


def _places(dimension: Dimension) -> list[float]:
    return [place(dimension, coordinate(dimension, i)) for i in range(size(dimension) or 0)]


def _of(trial: Trial) -> int:
    """The generation of a trial."""
    return int(trial.notes[_NOTE]["generation"])


def _told(mine: Any) -> list[list[int]]:
    """What the strategy was told before each generation, as the first trial of it says."""
    said: dict[int, list[int]] = {}
    for trial in mine:
        note: Mapping[str, Any] = trial.notes[_NOTE]
        if "told" in note:
            said.setdefault(_of(trial), list(note["told"]))
    return [said[generation] for generation in sorted(said)]


def _drawn(strategy: CatCMAwM, seed: int, number: int) -> CatCMAwM.Solution:
    strategy.reseed_rng(trial_seed(seed, number))
    return strategy.ask()


def _losses(trials: Sequence[Trial], sign: float) -> list[float]:
    """Less is better; where a constraint is exceeded a trial is worse than all where none is.

    Of equal ones the earlier is better by next to nothing: the strategy divides by their spread.
    """
    beyond = [math.fsum(max(0.0, part) for part in trial.excess) for trial in trials]
    values = [sign * (trial.values or (math.inf,))[0] for trial in trials]
    worst = max((v for v, over in zip(values, beyond, strict=True) if over == 0), default=0.0)
    losses = [value if over == 0 else worst + over for value, over in zip(values, beyond, strict=True)]
    little = _TIE * (max(losses) - min(losses) or max(1.0, abs(losses[0])))
    return [loss + little * i for i, loss in enumerate(losses)]


def _searcher(settings: SearcherSettings) -> Searcher:
    return CMAESSearcher(settings)


CMAES = Algorithm(name="cmaes", make=_searcher)
