"""Online, lags, timetable and weather: gradient-boosted trees for every lead (LightGBM)."""

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
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS = 200


def fit(series: pd.DataFrame, horizon: int, seed: int) -> list[lgb.Booster]:
    """One booster for every lead."""
    boosters = []
    for lead in range(1, horizon + 1):
        rows = departures.features(series, lead).assign(target=series["y"].shift(-lead)).dropna()
        data = lgb.Dataset(rows.drop(columns="target"), rows["target"])
        boosters.append(lgb.train({**PARAMETERS, "seed": seed}, data, num_boost_round=ROUNDS))
    return boosters


def forecast(
    boosters: list[lgb.Booster], series: pd.DataFrame, origins: np.ndarray, horizon: int
) -> np.ndarray:
    """All origins of a lead at once."""
    rows = [departures.features(series, lead).iloc[origins] for lead in range(1, horizon + 1)]
    return np.column_stack([booster.predict(x) for booster, x in zip(boosters, rows, strict=False)])


if __name__ == "__main__":
    departures.online(fit, forecast)
