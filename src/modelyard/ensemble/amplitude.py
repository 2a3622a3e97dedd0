"""Amplitude: offline forecasts rescaled to the level the series has had lately.

An offline model knows the shape of a day but not today's size (Mincer & Zarnowitz 1969: regress the
truth on the forecast and correct it). The correction is robust: the median over the last
`amplitude_window` clean rows of truth over forecast, or, where the series crosses or comes near
zero and a ratio means nothing, of truth minus forecast. Rows enter when their truth is known, so a
forecast for t made at t-h uses truth up to t-h only. It does not know which rows are clean.
"""

from __future__ import annotations

import numpy as np

from modelyard.ensemble.rules import Floats

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
        self.refresh()

    def refresh(self) -> None:
        """Derive the corrections from the windows, as after a load."""
        values = np.sort(self.recent, axis=-1).reshape(2, -1)  # NaN, also of empty places, come last
        filled = np.minimum(self.rows, self.window).astype(np.intp)
        last = self._cell + np.maximum(filled - 1, 0)
        low = self._cell + np.maximum(filled - 1, 0) // 2
        high = self._cell + np.minimum(filled // 2, self.window - 1)
        middle = 0.5 * (values[:, low] + values[:, high])
        crosses = values[0, self._cell] * values[0, last] < 0  # rows of both signs
        additive = np.isnan(values[0, last]) | crosses
        seen = filled > 0
        self.factor = np.where(seen & ~additive, np.abs(middle[0]), 1.0)
        self.shift = np.where(seen & additive, middle[1], 0.0)

    def apply(self, forecast_hk: Floats) -> Floats:
        """The corrected forecasts, `(H, experts)`; NaN stays NaN."""
        return np.asarray(forecast_hk * self.factor + self.shift)
