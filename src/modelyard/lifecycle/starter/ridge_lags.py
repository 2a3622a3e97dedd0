"""Online, lags, timetable and weather: one ridge regression for every lead (scikit-learn).

The timetable and the newest departures have a slope of their own in every hour of the day: what is
late at eight in the evening is caught up, what is late at eleven is not.
"""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

BY_HOUR = ["due", "due_before", "due_after", "late", "late_3h", "y_0", "day_before", "week_before"]
PENALTIES = np.logspace(0, 4, 9)


def design(rows: pd.DataFrame) -> np.ndarray:
    """All features, the hour and the weekday as indicators, and BY_HOUR times the hour."""
    hours = rows["hour"].to_numpy()[:, None] == np.arange(departures.DAY)
    weekdays = rows["weekday"].to_numpy()[:, None] == np.arange(7)
    slopes = [hours * rows[[name]].to_numpy() for name in BY_HOUR]
    return np.column_stack([rows, hours, weekdays, *slopes]).astype(float)


def fit(series: pd.DataFrame, horizon: int, seed: int) -> list[Pipeline]:
    """One pipeline for every lead, its penalty chosen by leave-one-out."""
    models = []
    for lead in range(1, horizon + 1):
        rows = departures.features(series, lead).assign(target=series["y"].shift(-lead)).dropna()
        model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        models.append(model.fit(design(rows.drop(columns="target")), rows["target"]))
    return models


def forecast(models: list[Pipeline], series: pd.DataFrame, origins: np.ndarray, horizon: int) -> np.ndarray:
    """All origins of a lead at once; after the last hour of the timetable nothing is due."""
    rows = [departures.features(series, lead).iloc[origins].fillna(0) for lead in range(1, horizon + 1)]
    return np.column_stack([model.predict(design(x)) for model, x in zip(models, rows, strict=False)])


if __name__ == "__main__":
    departures.online(fit, forecast)
