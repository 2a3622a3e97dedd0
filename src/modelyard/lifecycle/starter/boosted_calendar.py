"""Offline, calendar and timetable: gradient-boosted trees (LightGBM)."""

from __future__ import annotations

import departures
import lightgbm as lgb
import numpy as np
import pandas as pd

PARAMETERS = {
    "objective": "regression_l1",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS = 200


def features(rows: pd.DataFrame) -> pd.DataFrame:
    """The calendar, and the timetable of the hour and of those before it."""
    due = rows["scheduled"]
    earlier = {f"due_{k}": due.shift(k) for k in range(4)}
    return departures.calendar(rows.index).assign(**earlier, due_next=due.shift(-1))


def fit(series: pd.DataFrame, seed: int) -> lgb.Booster:
    """One booster for all hours."""
    data = lgb.Dataset(features(series), series["y"])
    return lgb.train({**PARAMETERS, "seed": seed}, data, num_boost_round=ROUNDS)


def forecast(booster: lgb.Booster, ahead: pd.DataFrame) -> np.ndarray:
    """Every hour ahead at once."""
    return booster.predict(features(ahead))


if __name__ == "__main__":
    departures.offline(fit, forecast)
