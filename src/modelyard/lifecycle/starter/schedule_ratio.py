"""Online, timetable: what usually leaves in an hour, times the share that has been leaving of late.

The share is a ratio of two exponentially weighted means. Its memory, and how far it is trusted
against 1, are chosen for every lead on the training data.
"""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd

HALF_LIVES_H = (0.5, 1, 2, 4, 8)
TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def fit(series: pd.DataFrame, horizon: int, seed: int) -> dict:
    """The usual lateness by hour, and the best (half-life, trust) of every lead."""
    lateness = (series["y"] - series["scheduled"]).groupby(series.index.hour).median()
    expected = usual(series, lateness)
    best = []
    for lead in range(1, horizon + 1):
        errors = {
            (half_life, trust): (series["y"] - expected * share(series, half_life, trust).shift(lead))
            .abs()
            .mean()
            for half_life in HALF_LIVES_H
            for trust in TRUSTS
        }
        best.append(min(errors, key=errors.get))
    return {"lateness": lateness, "best": best}


def usual(series: pd.DataFrame, lateness: pd.Series) -> pd.Series:
    """The timetable of every hour, moved as usual: flights of the late evening leave after midnight."""
    return (series["scheduled"] + lateness.loc[series.index.hour].to_numpy()).clip(lower=0)


def share(series: pd.DataFrame, half_life_h: float, trust: float) -> pd.Series:
    """The share of the timetable that has been leaving, as known at every hour, drawn towards 1."""
    left, due = (series[name].ewm(halflife=half_life_h).mean() for name in ("y", "scheduled"))
    return 1 + trust * ((left + 1) / (due + 1) - 1).clip(-1, 1)


def forecast(fitted: dict, series: pd.DataFrame, origins: np.ndarray, horizon: int) -> np.ndarray:
    """What is usual at the target, corrected by the share known at the origin."""
    expected = usual(series, fitted["lateness"]).to_numpy()
    shares = [share(series, *best).to_numpy()[origins] for best in fitted["best"][:horizon]]
    targets = np.minimum(origins[:, None] + np.arange(1, horizon + 1), len(series) - 1)
    return expected[targets] * np.column_stack(shares)


if __name__ == "__main__":
    departures.online(fit, forecast)
