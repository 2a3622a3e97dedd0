"""Rules that fit: weights that would have had the least squared error, by NNLS and by greedy selection.

Both work on the discounted cross moments of the experts' errors, `E_ij = mean e_i e_j` over the rows in
which both were scored: with weights that sum to one, the mixture's error is the mixture of the errors,
so its mean square is `w' E w`. A ridge of one row's usual size makes the first rows count for little.
They have no regret bound; what they have is the best convex combination of the past.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from modelyard.ensemble.combining.lessons import LOWEST, Bools, Floats, Lesson, State

_ROUNDS = 25  # picks of the greedy selection: weights are multiples of a twenty-fifth
_LEAST = 1e-9  # weights below it are none
_EAGER = 50  # rows for which it is fitted anew at each
_STRIDE = 2  # rows from one fit to the next after them


@dataclass(frozen=True, slots=True)
class Moments:
    """The discounted cross moments that both rules keep.

    Attributes:
        beta: The memory, in (0, 1].
        blocks: The mixtures.
    """

    beta: float
    blocks: tuple[slice, ...]

    def start(self, shape: tuple[int, int]) -> State:
        """For every mixture the sums of products and the rows behind them; and the weights."""
        rows = shape[0]
        state = {"log": np.zeros(shape), "rows": np.zeros((rows, 1))}
        for place, block in enumerate(self.blocks):
            size = block.stop - block.start
            state[f"moments{place}"] = np.zeros((2, rows, size, size))
        return state

    def add(self, state: State, lesson: Lesson) -> None:
        """Discount the pairs in which both were scored, and add this row."""
        for place, block in enumerate(self.blocks):
            scored, gap = lesson.scored[:, block], lesson.gap[:, block]
            both = scored[:, :, None] * scored[:, None, :]
            moments = state[f"moments{place}"]
            moments *= 1.0 - (1.0 - self.beta) * both
            moments[0] += gap[:, :, None] * gap[:, None, :] * both
            moments[1] += both

    def due(self, state: State, lesson: Lesson) -> NDArray[np.intp]:
        """The rows to fit anew: at every scored one of the first, then at every other one."""
        scored = lesson.scored.any(axis=1)
        state["rows"][scored, 0] += 1.0
        count = state["rows"][:, 0]
        return np.flatnonzero(scored & ((count <= _EAGER) | (count % _STRIDE == 0)))

    def means(self, state: State, place: int) -> tuple[Floats, Bools]:
        """`E` with its ridge, scaled to a mean diagonal of 1, and who was ever scored."""
        total, rows = state[f"moments{place}"]
        seen = np.diagonal(rows, axis1=1, axis2=2) > 0
        mean = total / np.where(rows > 0, rows, 1.0)
        diagonal = np.diagonal(mean, axis1=1, axis2=2)
        floor = np.where(seen & (diagonal > 0), diagonal, np.inf).min(axis=1)
        scale = np.where(np.isfinite(floor), floor, 1.0)[:, None]
        size = np.sqrt(np.where(seen, diagonal, 0.0) / scale)
        unknown = (rows == 0) * size[:, :, None] * size[:, None, :]  # never together: as if they err alike
        newest = np.maximum(np.diagonal(rows, axis1=1, axis2=2).max(axis=1), 1.0)
        ridge = np.eye(total.shape[-1]) / newest[:, None, None]
        return mean / scale[..., None] + unknown + ridge, seen


@dataclass(frozen=True, slots=True)
class _Fitted(ABC):
    """A rule that is fitted anew to all that was seen, where it is due.

    Attributes:
        moments: What is kept.
    """

    moments: Moments

    def start(self, shape: tuple[int, int]) -> State:
        """Nothing seen, all alike."""
        return self.moments.start(shape)

    def learn(self, state: State, lesson: Lesson) -> None:
        """Add the row, and fit anew where that is due."""
        self.moments.add(state, lesson)
        due = self.moments.due(state, lesson)
        if not len(due):
            return
        for place, block in enumerate(self.moments.blocks):
            mean, seen = self.moments.means(state, place)
            rows = due[seen[due].any(axis=1)]
            if len(rows):
                state["log"][rows, block] = _log(self._fit(mean[rows], seen[rows]))

    def log_weights(self, state: State) -> Floats:
        """Of the last fit."""
        return state["log"]

    @abstractmethod
    def _fit(self, mean: Floats, seen: Bools) -> Floats:
        """Weights of rows, `(rows, experts)`, from their mean products of errors and who was seen."""


class Nnls(_Fitted):
    """Stacking: the convex combination with the least squared error so far.

    Breiman (1996), "Stacked regressions", section 2, with weights that sum to one. The minimum of `w' E
    w` on the simplex is that of a non-negative least squares problem with one row that asks for the sum,
    scaled to it.
    """

    __slots__ = ()

    def _fit(self, mean: Floats, seen: Bools) -> Floats:
        return np.array([simplex_fit(*row) for row in zip(mean, seen, strict=True)])


class Greedy(_Fitted):
    """Ensemble selection: experts picked one after the other, each may come again.

    Caruana, Niculescu-Mizil, Crew & Ksikes (2004), "Ensemble selection from libraries of models",
    section 2.1, by the squared error of the mean of those picked; a weight is the share of picks.
    """

    __slots__ = ()

    def _fit(self, mean: Floats, seen: Bools) -> Floats:
        return _select(mean, seen)


def _log(weights: Floats) -> Floats:
    return np.where(weights > _LEAST, np.log(np.maximum(weights, _LEAST)), LOWEST)


def simplex_fit(mean: Floats, seen: Bools) -> Floats:
    """The weights of the least `w' E w` among the experts seen; zeros where none was."""
    weights, known = np.zeros(len(mean)), np.flatnonzero(seen)
    values, vectors = np.linalg.eigh(mean[np.ix_(known, known)])
    root = np.sqrt(np.maximum(values, 1e-12 * values.max()))[:, None] * vectors.T
    found, _ = nnls(np.vstack([root, np.ones(len(known))]), np.append(np.zeros(len(known)), 1.0))
    weights[known] = found / max(found.sum(), 1e-300)
    return weights


def _select(mean: Floats, seen: Bools) -> Floats:
    """The shares of the picks, `(rows, experts)`."""
    own = np.diagonal(mean, axis1=1, axis2=2)
    cost = np.where(seen, own, np.inf)
    picks, with_bag = np.zeros(own.shape), np.zeros(own.shape)
    every = np.arange(len(mean))
    for _ in range(_ROUNDS):
        chosen = (2.0 * with_bag + cost).argmin(axis=1)
        picks[every, chosen] += 1.0
        with_bag += mean[every, chosen]
    return picks / _ROUNDS
