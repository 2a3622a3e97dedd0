"""Online, lags and weather: linear models that go on learning while they forecast (river).

Feedback is delayed: the model of lead h learns from the forecast of origin t when hour t + h has
been observed, never earlier. It does not know the timetable.
"""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from river import compose, linear_model, optim, preprocessing

FIRST = departures.WEEK + 3  # the first origin with all its lags


def features(series: pd.DataFrame, lead: int) -> list[dict[str, float]]:
    """What every origin knows: recent departures, the weather, and the hour of the target."""
    target = departures.calendar(series.index + pd.Timedelta(hours=lead))
    table = departures.lags(series, lead).join(series[departures.WEATHER])
    for hour in range(departures.DAY):
        table[f"hour_{hour}"] = (target["hour"].to_numpy() == hour).astype(float)
    return table.to_dict("records")


def fit(series: pd.DataFrame, horizon: int, seed: int) -> list[compose.Pipeline]:
    """One pass over the training data for every lead."""
    y = series["y"].to_list()
    models = []
    for lead in range(1, horizon + 1):
        known = features(series, lead)
        model = preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.003), l2=1e-4)
        for origin in range(FIRST, len(y) - lead):
            model.learn_one(known[origin], y[origin + lead])
        models.append(model)
    return models


def forecast(
    models: list[compose.Pipeline], series: pd.DataFrame, origins: np.ndarray, horizon: int
) -> np.ndarray:
    """At each origin learn from the hour just observed, then forecast."""
    y = series["y"].to_list()
    columns = []
    for lead, model in enumerate(models[:horizon], start=1):
        known = features(series, lead)
        column = []
        for origin in origins:
            if origin > origins[0]:  # training has learned all before the first origin
                model.learn_one(known[origin - lead], y[origin])
            column.append(model.predict_one(known[origin]))
        columns.append(column)
    return np.column_stack(columns)


if __name__ == "__main__":
    departures.online(fit, forecast)
