"""Offline, calendar and timetable: a Poisson regression of the count (statsmodels GLM)."""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from statsmodels.genmod.families import Poisson
from statsmodels.genmod.generalized_linear_model import GLM


def design(rows: pd.DataFrame) -> np.ndarray:
    """A column for each hour and weekday, holidays, and the timetable of the hour and the one before."""
    known = departures.calendar(rows.index)
    hours = known["hour"].to_numpy()[:, None] == np.arange(departures.DAY)
    weekdays = known["weekday"].to_numpy()[:, None] == np.arange(1, 7)
    due = np.log1p(np.column_stack([rows["scheduled"], rows["scheduled"].shift(1).fillna(0)]))
    return np.column_stack([hours, weekdays, known[["holiday", "eve"]], due]).astype(float)


def fit(series: pd.DataFrame, seed: int) -> np.ndarray:
    """The coefficients, by iteratively reweighted least squares."""
    results = GLM(series["y"].to_numpy(float), design(series), family=Poisson()).fit()
    return np.asarray(results.params)


def forecast(coefficients: np.ndarray, ahead: pd.DataFrame) -> np.ndarray:
    """The expected count of every hour ahead."""
    return np.exp(design(ahead) @ coefficients)


if __name__ == "__main__":
    departures.offline(fit, forecast)
