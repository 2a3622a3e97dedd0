"""Online, departures only: level, day and week as unobserved components (statsmodels).

The components drift, so the model follows the season without knowing the timetable. How fast they
drift is fitted on the last weeks of training; afterwards the Kalman filter runs on.
"""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from statsmodels.tsa.statespace.structural import UnobservedComponents

FITTED_ON_H = 4 * departures.WEEK
SCALE = 10.0  # departures; variances near 1 are easier to fit


def model(y: pd.Series) -> UnobservedComponents:
    """A drifting level, day and week in harmonics, and an autoregressive rest."""
    seasons = [{"period": departures.DAY, "harmonics": 8}, {"period": departures.WEEK, "harmonics": 4}]
    scaled = y.to_numpy(float) / SCALE
    return UnobservedComponents(scaled, level="llevel", freq_seasonal=seasons, autoregressive=1)


def fit(series: pd.DataFrame, horizon: int, seed: int) -> np.ndarray:
    """The variances and the autoregression of largest likelihood."""
    results = model(series["y"].tail(FITTED_ON_H)).fit(disp=False, maxiter=200, cov_type="none")
    return np.asarray(results.params)


def forecast(params: np.ndarray, series: pd.DataFrame, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Filter the whole series, and step ahead from every origin."""
    return SCALE * departures.step_filter(model(series["y"]).filter(params), origins, horizon)


if __name__ == "__main__":
    departures.online(fit, forecast)
