"""Offline, calendar only: the week as a Fourier series over a linear trend (least squares, numpy)."""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd

DAY_HARMONICS, WEEK_HARMONICS = 11, 6
EPOCH = pd.Timestamp("2013-01-01")


def design(times: pd.DatetimeIndex) -> np.ndarray:
    """Level, and waves of the day and of the week; (rows, 1 + 2 (11 + 6))."""
    hours = ((times - EPOCH) / pd.Timedelta(hours=1)).to_numpy()
    day = [k / departures.DAY for k in range(1, DAY_HARMONICS + 1)]
    week = [k / departures.WEEK for k in range(1, WEEK_HARMONICS + 1)]
    angles = 2 * np.pi * np.outer(hours, [*day, *week])
    return np.column_stack([np.ones(len(hours)), np.sin(angles), np.cos(angles)])


def fit(series: pd.DataFrame, seed: int) -> np.ndarray:
    """The coefficients of least squares."""
    return np.linalg.lstsq(design(series.index), series["y"].to_numpy(float), rcond=None)[0]


def forecast(coefficients: np.ndarray, ahead: pd.DataFrame) -> np.ndarray:
    """The wave goes on."""
    return design(ahead.index) @ coefficients


if __name__ == "__main__":
    departures.offline(fit, forecast)
