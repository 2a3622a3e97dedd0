"""Offline, calendar only: a profile of the week with its holidays, by a random forest (scikit-learn)."""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor


def fit(series: pd.DataFrame, seed: int) -> RandomForestRegressor:
    """Grow the forest on the hour, the weekday and the holidays."""
    model = RandomForestRegressor(n_estimators=100, min_samples_leaf=5, n_jobs=1, random_state=seed)
    return model.fit(departures.calendar(series.index), series["y"])


def forecast(model: RandomForestRegressor, ahead: pd.DataFrame) -> np.ndarray:
    """Every hour ahead at once."""
    return model.predict(departures.calendar(ahead.index))


if __name__ == "__main__":
    departures.offline(fit, forecast)
