"""Online, timetable: a regression on the timetable with ARMA errors (statsmodels SARIMAX), in two steps.

Fitted once; afterwards the Kalman filter runs on over the new hours with the parameters fixed.
"""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from statsmodels.tsa.statespace.sarimax import SARIMAX


def usual(series: pd.DataFrame) -> np.ndarray:
    """What explains a usual hour: the hour of the day, and the timetable around it; (rows, 28)."""
    hours = series.index.hour.to_numpy()[:, None] == np.arange(departures.DAY)
    due = np.column_stack([series["scheduled"].shift(k).fillna(0) for k in (-1, 0, 1, 2)])
    return np.column_stack([hours, due]).astype(float)


def errors(series: pd.DataFrame, coefficients: np.ndarray) -> SARIMAX:
    """ARMA(2,1) for what the regression leaves."""
    return SARIMAX(series["y"].to_numpy(float) - usual(series) @ coefficients, order=(2, 0, 1))


def fit(series: pd.DataFrame, horizon: int, seed: int) -> dict:
    """The regression by least squares, then the ARMA parameters of largest likelihood."""
    coefficients = np.linalg.lstsq(usual(series), series["y"].to_numpy(float), rcond=None)[0]
    results = errors(series, coefficients).fit(disp=False, cov_type="none")
    return {"coefficients": coefficients, "arma": np.asarray(results.params)}


def forecast(fitted: dict, series: pd.DataFrame, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Filter the whole series, step ahead from every origin, and add what is usual at the target."""
    filtered = errors(series, fitted["coefficients"]).filter(fitted["arma"])
    regression = usual(series) @ fitted["coefficients"]
    targets = np.minimum(origins[:, None] + np.arange(1, horizon + 1), len(series) - 1)
    return departures.step_filter(filtered, origins, horizon) + regression[targets]


if __name__ == "__main__":
    departures.online(fit, forecast)
