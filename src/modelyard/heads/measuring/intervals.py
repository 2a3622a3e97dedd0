"""Intervals over texts or prompts, by the bootstrap (Efron 1979): the tokens of one text go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_DRAWS, _TAIL = 2000, 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A share or a mean, with its 95 % interval over texts."""

    value: float
    low: float
    high: float

    def shown(self, *, percent: bool = False) -> str:
        """For people."""
        if percent:
            return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Bootstrap:
    """Texts drawn again and again, the same draws for every ratio."""

    def __init__(self, texts: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self._times_ds = chance.multinomial(texts, np.full(texts, 1 / texts), size=_DRAWS).astype(float)

    def ratio(self, above_s: Floats, below_s: Floats) -> Estimate:
        """The ratio of two sums over texts; 0 where there is nothing below."""
        below = float(below_s.sum())
        if not below:
            return Estimate(value=0.0, low=0.0, high=0.0)
        return _estimate(float(above_s.sum()) / below, _divided(*self._drawn(above_s, below_s)))

    def quotient(self, above: tuple[Floats, Floats], below: tuple[Floats, Floats]) -> Estimate:
        """The quotient of two such ratios, of which that below is not 0."""
        first, second = (float(sums[0].sum()) / float(sums[1].sum()) for sums in (above, below))
        ratios = [_divided(*self._drawn(*sums)) for sums in (above, below)]
        return _estimate(first / second, _divided(*ratios))

    def _drawn(self, *counts: Floats) -> list[Floats]:
        return [self._times_ds @ each_s for each_s in counts]


def _divided(above_d: Floats, below_d: Floats) -> Floats:
    """NaN where there is nothing below."""
    return np.divide(above_d, below_d, out=np.full_like(above_d, np.nan), where=below_d > 0)


def _estimate(value: float, drawn_d: Floats) -> Estimate:
    low, high = np.nanpercentile(drawn_d, [_TAIL, 100 - _TAIL])
    return Estimate(value=value, low=float(low), high=float(high))
