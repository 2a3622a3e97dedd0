"""What the forecasters of this yard share: reading the series, their two commands, writing forecasts.

A forecaster is a script with two functions. An online one hands `fit(series, horizon, seed)` and
`forecast(fitted, series, origins, horizon)` to `online`; an offline one hands `fit(series, seed)`
and `forecast(fitted, ahead)` to `offline`. This module gives them the commands

    train   --data train.csv --save model.joblib [--seed 42] [--horizon 6]
    predict --data history.csv --model model.joblib [--horizon 6] --out predictions.csv

and knows nothing of the models themselves. No look-ahead: a forecast may use rows up to its origin,
and of later rows only what was known in advance, the timetable (`scheduled`) and the calendar.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from pandas.tseries.holiday import USFederalHolidayCalendar

DAY, WEEK = 24, 168
WEATHER = ["temp", "wind_speed", "precip", "visib", "pressure"]
ISO = "%Y-%m-%dT%H:%M:%S"


def online(fit: Callable[..., Any], forecast: Callable[..., np.ndarray]) -> None:
    """Run the command of an online forecaster, which knows the newest data at every hour.

    `forecast` gets `origins`, row numbers of `series`, and returns an array (origins, horizon).
    """
    options = _options()
    series = read_series(options.data)
    if options.command == "train":
        _save(options, series, fit(series, options.horizon, options.seed))
        return
    model = joblib.load(options.model)
    if options.horizon > model["horizon"]:
        sys.exit(f"{options.model} has {model['horizon']} leads: train with --horizon {options.horizon}")
    # every hour from the end of the training data on is an origin, as long as there is an hour after it
    origins = np.arange(series.index.get_loc(model["trained_until"]), len(series) - 1)
    y_pred = forecast(model["fitted"], series, origins, options.horizon)
    table = pd.DataFrame(
        {
            "origin": np.repeat(series.index[origins], options.horizon),
            "lead": np.tile(np.arange(1, options.horizon + 1), len(origins)),
            "y_pred": y_pred.ravel(),
        }
    )
    table.insert(2, "target_time", table["origin"] + pd.to_timedelta(table["lead"], unit="h"))
    _write(options.out, table[table["target_time"] <= series.index[-1]])  # no timetable beyond


def offline(fit: Callable[..., Any], forecast: Callable[..., np.ndarray]) -> None:
    """Run the command of an offline forecaster: everything issued once, at the end of its training data.

    `forecast` gets the rows to forecast with what is known of them in advance, the time (the index)
    and `scheduled`, and returns an array (rows,).
    """
    options = _options()
    series = read_series(options.data)
    if options.command == "train":
        _save(options, series, fit(series, options.seed))
        return
    model = joblib.load(options.model)
    origin = model["trained_until"]
    ahead = series.loc[series.index > origin, ["scheduled"]]
    lead = (ahead.index - origin) // pd.Timedelta(hours=1)
    columns = {"lead": lead, "target_time": ahead.index, "y_pred": forecast(model["fitted"], ahead)}
    _write(options.out, pd.DataFrame({"origin": origin, **columns}))


def read_series(path: Path) -> pd.DataFrame:
    """The hourly table, indexed by time; gaps are refused, because lags are counted in rows."""
    series = pd.read_csv(path, index_col="time", parse_dates=["time"])
    if len(series) < 2 or not (series.index[1:] - series.index[:-1] == pd.Timedelta(hours=1)).all():
        sys.exit(f"{path}: the column `time` must hold every hour once, in order")
    return series


def calendar(times: pd.DatetimeIndex) -> pd.DataFrame:
    """What the calendar says of each time: the hour, the weekday, and a federal holiday or its eve."""
    days = times.normalize()
    around = pd.Timedelta(days=2)
    holidays = USFederalHolidayCalendar().holidays(days.min() - around, days.max() + around)
    return pd.DataFrame(
        {
            "hour": times.hour,
            "weekday": times.weekday,
            "holiday": days.isin(holidays).astype(int),
            "eve": (days + pd.Timedelta(days=1)).isin(holidays).astype(int),
        },
        index=times,
    )


def features(series: pd.DataFrame, lead: int) -> pd.DataFrame:
    """A row for every origin: all that it knows of the hour `lead` ahead.

    Missing where the series is too young for a lag or the target too late for the timetable.
    """
    target = calendar(series.index + pd.Timedelta(hours=lead)).set_axis(series.index)
    return pd.concat([lags(series, lead), timetable(series, lead), series[WEATHER], target], axis=1)


def lags(series: pd.DataFrame, lead: int) -> pd.DataFrame:
    """The newest values at every origin, and those a day and a week before its target (lead at most 24)."""
    y = series["y"]
    columns = {f"y_{k}": y.shift(k) for k in range(4)}
    columns["day_before"] = y.shift(DAY - lead)
    columns["week_before"] = y.shift(WEEK - lead)
    columns["week_change"] = (y - y.shift(WEEK)).rolling(3).mean()  # is it busier than a week ago?
    return pd.DataFrame(columns)


def timetable(series: pd.DataFrame, lead: int) -> pd.DataFrame:
    """The timetable around the target of every origin, and how far behind it the airports are."""
    due, late = series["scheduled"], series["scheduled"] - series["y"]
    columns = {"due": due.shift(-lead), "due_before": due.shift(1 - lead), "due_after": due.shift(-lead - 1)}
    columns |= {"late": late, "late_3h": late.rolling(3).sum(), "late_12h": late.rolling(12).sum()}
    return pd.DataFrame(columns)


def step_filter(results: Any, origins: np.ndarray, horizon: int) -> np.ndarray:
    """Forecasts from a filtered state-space model of statsmodels with fixed matrices, at every origin.

    With state a(t|t), transition T, design Z and known regression part d: y(t+h|t) = Z T^h a(t|t) + d(t+h)
    (Durbin & Koopman 2012, section 4.11). Returns (origins, horizon).
    """
    filtered = results.filter_results
    design, transition = filtered.design[0, :, 0], filtered.transition[:, :, 0]
    known = np.broadcast_to(filtered.obs_intercept[0], (filtered.nobs,))
    state = filtered.filtered_state[:, origins]
    forecasts = []
    for lead in range(1, horizon + 1):
        state = transition @ state
        forecasts.append(design @ state + known[np.minimum(origins + lead, filtered.nobs - 1)])
    return np.column_stack(forecasts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    train, predict = commands.add_parser("train"), commands.add_parser("predict")
    for command in (train, predict):
        command.add_argument("--data", type=Path, required=True, help="the hourly table")
        command.add_argument("--horizon", type=int, choices=range(1, DAY + 1), metavar="1..24", default=6)
    train.add_argument("--save", type=Path, required=True, help="where the model goes")
    train.add_argument("--seed", type=int, default=42)
    predict.add_argument("--model", type=Path, required=True, help="what train saved")
    predict.add_argument("--out", type=Path, required=True, help="where the forecasts go")
    return parser.parse_args()


def _save(options: argparse.Namespace, series: pd.DataFrame, fitted: Any) -> None:
    model = {"trained_until": series.index[-1], "horizon": options.horizon, "fitted": fitted}
    options.save.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, options.save)
    print(f"trained on {len(series)} hours until {series.index[-1]}: {options.save}")


def _write(path: Path, table: pd.DataFrame) -> None:
    table = table.assign(y_pred=table["y_pred"].clip(lower=0))  # a count is never negative
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, date_format=ISO, float_format="%.3f")
    print(f"{len(table)} forecasts from {table['origin'].nunique()} origins: {path}")
