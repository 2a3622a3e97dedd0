"""Online, departures only: what followed the most similar days of the past (scikit-learn neighbours)."""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsRegressor

NEIGHBOURS = 15
HOUR_WEIGHT, WEEKEND_WEIGHT = 60.0, 30.0  # in departures: an hour apart is as far as so many departures


def windows(series: pd.DataFrame) -> np.ndarray:
    """The last day of every origin, and where it stands in the day and the week; (rows, 28), NaN at first."""
    last_day = [series["y"].shift(k).to_numpy(float) for k in range(departures.DAY)]
    angle = 2 * np.pi * series.index.hour.to_numpy() / departures.DAY
    hour = [HOUR_WEIGHT * departures.DAY / (2 * np.pi) * f(angle) for f in (np.sin, np.cos)]
    weekend = [WEEKEND_WEIGHT * (series.index.weekday == day) for day in (5, 6)]
    return np.column_stack([*last_day, *hour, *weekend])


def fit(series: pd.DataFrame, horizon: int, seed: int) -> KNeighborsRegressor:
    """Remember every origin of the training data with the hours that followed."""
    followed = np.column_stack([series["y"].shift(-lead) for lead in range(1, horizon + 1)])
    rows = slice(departures.DAY, len(series) - horizon)
    return KNeighborsRegressor(NEIGHBOURS, weights="distance").fit(windows(series)[rows], followed[rows])


def forecast(
    model: KNeighborsRegressor, series: pd.DataFrame, origins: np.ndarray, horizon: int
) -> np.ndarray:
    """The mean of what followed the nearest origins."""
    return model.predict(windows(series)[origins])[:, :horizon]


if __name__ == "__main__":
    departures.online(fit, forecast)
