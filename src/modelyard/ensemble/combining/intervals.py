"""Conformal intervals of a forecast, from its own past errors, and corrected by how they held.

The radius is the conformal quantile of the newest `WINDOW` absolute errors; how far out is adapted:
after every miss the rate asked for goes down, after every hit up (Gibbs & Candès 2021, "Adaptive
conformal inference under distribution shift", eq. 2), so that the long-run coverage holds for any
sequence, also where errors are not exchangeable. Rows (leads, series) are independent.
"""

from __future__ import annotations

import math

import numpy as np

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Bools, Floats

WINDOW = 200  # errors that a radius is taken from
_STEP = 0.02  # how much one miss moves the rate


class Intervals:
    """Radii for some rows at one coverage. Not safe for several threads.

    Args:
        rows: How many.
        coverage: Wanted, in (0, 1).

    Raises:
        PolicyError: The coverage is out of range.
    """

    def __init__(self, rows: int, coverage: float) -> None:
        if not 0.0 < coverage < 1.0:
            raise PolicyError(f"coverage = {coverage} is out of range; use a number between 0 and 1")
        self._miss = 1.0 - coverage
        self.errors = np.full((rows, WINDOW), np.nan)  # the newest, by count modulo the window
        self.count = np.zeros(rows)  # errors ever
        self.rate = np.full(rows, self._miss)  # of misses asked for now

    def radius(self) -> Floats:
        """Half the width of each row's interval now, `(rows,)`; infinite while too little is known."""
        filled = np.minimum(self.count, WINDOW)
        rank = np.ceil((filled + 1.0) * (1.0 - self.rate) - 1e-9)
        ordered = np.sort(self.errors, axis=1)  # NaN last
        at = np.clip(rank, 1, WINDOW).astype(np.intp) - 1
        found = ordered[np.arange(len(at)), at]
        return np.where(rank > filled, math.inf, np.where(rank < 1, 0.0, found))

    def learn(self, error: Floats, radius: Floats, known: Bools) -> None:
        """Take in absolute errors and the radii that had been issued with them.

        Args:
            error: `(rows,)`, anything where not known.
            radius: What `radius` gave when the forecast was issued, NaN where nothing was issued.
            known: Which rows have an error.
        """
        rows = np.flatnonzero(known)
        missed = error[rows] > radius[rows]
        self.rate[rows] = np.clip(self.rate[rows] + _STEP * (self._miss - missed), -_STEP, 1.0)
        self.errors[rows, (self.count[rows] % WINDOW).astype(np.intp)] = error[rows]
        self.count[rows] += 1.0
