"""Amplitude: offline forecasts rescaled to the level the series has had lately.

An offline model knows the shape of a day but not today's size (Mincer & Zarnowitz 1969: regress the
truth on the forecast and correct it). The correction is robust: the median over the last
`amplitude_window` clean rows of truth over forecast, or, where the series crosses or comes near
zero and a ratio means nothing, of truth minus forecast. Rows enter when their truth is known, so a
forecast for t made at t-h uses truth up to t-h only. It does not know which rows are clean.
"""

from __future__ import annotations

import numpy as np

from modelyard.ensemble.combining.lessons import Floats

NEAR_ZERO = 0.05  # of the series' level: below it a row has no ratio


class Amplitude:
    """Running corrections for every lead and offline expert.

    Args:
        leads: H.
        experts: The number of offline experts.
        window: Clean rows a median is taken over.
        level: The series' usual size, in its units.
    """

    def __init__(self, *, leads: int, experts: int, window: int, level: float) -> None:
        shape = (leads, experts)
        self.window = window
        self.near = NEAR_ZERO * level
        # per cell the last rows' truth/|forecast|, NaN near zero, and truth - forecast
        self.recent = np.full((2, *shape, window), np.nan)
        self.rows = np.zeros(shape)  # clean rows ever
        self.factor = np.ones(shape)
        self.shift = np.zeros(shape)
        self._cell = np.arange(leads * experts).reshape(shape) * window
        self._full = False  # every window, so that places no longer move
        self._locate()

    def learn(self, forecast_hk: Floats, truth: float, clean_hk: Floats) -> None:
        """Add the rows that are served and clean, and take the medians anew.

        Args:
            forecast_hk: What each offline expert had forecast at each lead, finite, `(H, experts)`.
            truth: The value observed now.
            clean_hk: 1 where the expert served and the row is in no dirty interval, else 0.
        """
        use = np.flatnonzero(clean_hk)
        forecast = forecast_hk.ravel()[use]
        at = (self._cell + (self.rows % self.window).astype(np.intp)).ravel()[use]
        size = np.minimum(np.abs(forecast), abs(truth))
        ratio = (size >= self.near) & (forecast * truth > 0)
        flat = self.recent.reshape(2, -1)
        flat[0, at] = np.where(ratio, truth / np.where(ratio, np.abs(forecast), 1.0), np.nan)
        flat[1, at] = truth - forecast
        self.rows += clean_hk
        self._refresh()

    def restore(self) -> None:
        """Derive everything anew after `recent` and `rows` were filled from outside."""
        self._full = False
        self._refresh()

    def apply(self, forecast_hk: Floats) -> Floats:
        """The corrected forecasts, `(H, experts)`; NaN stays NaN."""
        return np.asarray(forecast_hk * self.factor + self.shift)

    def _refresh(self) -> None:
        if not self._full:
            self._locate()
        values = np.sort(self.recent, axis=-1).reshape(2, -1)  # NaN, also of empty places, come last
        ratio, offset = 0.5 * (values[:, self._low] + values[:, self._high])
        last = values[0, self._last]
        multiplicative = self._seen & (values[0, self._cell] * last > 0)  # one sign, no NaN
        self.factor = np.where(multiplicative, np.abs(ratio), 1.0)
        self.shift = np.where(multiplicative | ~self._seen, 0.0, offset)

    def _locate(self) -> None:
        """Where the medians and the largest values stand in the sorted windows."""
        filled = np.minimum(self.rows, self.window).astype(np.intp)
        newest = np.maximum(filled - 1, 0)
        self._seen = filled > 0
        self._last = self._cell + newest
        self._low = self._cell + newest // 2
        self._high = self._cell + np.minimum(filled // 2, self.window - 1)
        self._full = bool((filled == self.window).all())
