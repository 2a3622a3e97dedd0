"""Offline, departures only: trend and week by smoothing (statsforecast MSTL).

The smoothing is robust, so that a stormy week is not repeated for the rest of the year.
"""

from __future__ import annotations

import departures
import numpy as np
import pandas as pd
from statsforecast.models import MSTL, SimpleExponentialSmoothing


def fit(series: pd.DataFrame, seed: int) -> MSTL:
    """Take the series apart; what is left of it without the week is held at its last level."""
    level = SimpleExponentialSmoothing(alpha=0.01)
    model = MSTL(season_length=departures.WEEK, trend_forecaster=level, stl_kwargs={"robust": True})
    return model.fit(series["y"].to_numpy(float))


def forecast(model: MSTL, ahead: pd.DataFrame) -> np.ndarray:
    """The level, and the last week repeated."""
    return model.predict(h=len(ahead))["mean"]


if __name__ == "__main__":
    departures.offline(fit, forecast)
