"""A synthetic ensemble run in the shared format: ten experts, storms, and weights that move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ONLINE = ("ridge_lags", "lgbm_direct", "ets", "seasonal_naive", "knn_analogue")
OFFLINE = ("fourier", "poisson_glm", "forest_calendar", "mstl")
PERIOD = 24


def truth(hours: int, storms: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A daily and weekly profile with storms that halve it for a day; shape [hours] each."""
    hour = np.arange(hours)
    profile = 60 * np.clip(np.sin(2 * np.pi * (hour % 24 - 5) / 34), 0, None) + 3
    profile *= np.where((hour // 24) % 7 == 5, 0.8, 1.0)
    factor = np.ones(hours)
    for storm in storms:
        factor[storm : storm + 18] *= np.linspace(0.1, 0.7, len(factor[storm : storm + 18]))
    return profile * factor + rng.normal(0, 2, hours), profile


def backtest_rows(hours: int, leads: list[int], storms: tuple[int, ...], *, seed: int = 7) -> pd.DataFrame:
    """backtest.parquet of one series."""
    rng = np.random.default_rng(seed)
    y, profile = truth(hours, storms, rng)
    times = pd.date_range("2013-09-01", periods=hours, freq="h", tz="UTC").as_unit("us")
    mutant = np.zeros(hours, dtype=bool)
    for storm in storms:
        mutant[storm : storm + 20] = True
    frames = []
    for lead in leads:
        late = np.where(
            np.arange(hours) < lead, profile, profile * np.roll(y / np.clip(profile, 3, None), lead)
        )
        columns: dict[str, Any] = {"series": "main", "target_time": times, "lead": lead, "y": y}
        experts = {
            **{name: late + rng.normal(0, 1.5 + place, hours) for place, name in enumerate(ONLINE)},
            **{
                name: profile * (1.05 + 0.05 * place) + rng.normal(0, 2, hours)
                for place, name in enumerate(OFFLINE)
            },
        }
        pool = np.stack(list(experts.values()))
        policy = 0.6 * experts["ridge_lags"] + 0.4 * (0.7 * experts["fourier"] + 0.3 * y)
        columns |= {"policy": policy, "uniform": pool.mean(axis=0), "inverse_score": 0.5 * pool.mean(axis=0)}
        columns["inverse_score"] += 0.5 * experts["ridge_lags"]
        columns |= {"best_single": experts["fourier"], "mutant": mutant, "dirty": mutant}
        columns |= {f"expert:{name}": values for name, values in experts.items()}
        frames.append(pd.DataFrame(columns))
    rows = pd.concat(frames, ignore_index=True)
    rows.loc[rows.index[:5], "expert:mstl"] = np.nan
    return rows


def backtest_table(rows: pd.DataFrame, leads: list[int]) -> list[dict[str, Any]]:
    """The table of backtest.json from the rows themselves."""
    rules = (("policy", "policy"), ("uniform", "uniform"), ("inverse_score", "inverse_score"))
    named = [(name, kind, name, None) for name, kind in rules]
    named.append(("best_single", "best_single_hindsight", "best_single_hindsight", None))
    for column in rows.columns:
        if column.startswith("expert:"):
            name = column.removeprefix("expert:")
            named.append((column, "expert", name, "online" if name in ONLINE else "offline"))
    table = []
    for column, kind, name, group in named:
        cuts = [
            ("all", None, rows),
            ("calm", None, rows[~rows["mutant"]]),
            ("mutant", None, rows[rows["mutant"]]),
        ]
        cuts += [("all", lead, rows[rows["lead"] == lead]) for lead in leads]
        for which, lead, part in cuts:
            error = (part[column] - part["y"]).abs().dropna()
            entry = {"name": name, "kind": kind, "group": group, "rows": which, "lead": lead}
            mae = float(error.mean()) if len(error) else None
            entry |= {"mae": mae, "mase": mae and mae / 6.0, "n": len(error)}
            table.append(entry | {"served_share": len(error) / max(len(part), 1)})
    return table


def weight_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """weights.parquet: both levels, simplices that wander."""
    rng = np.random.default_rng(3)
    frames = []
    members = {"expert": [*ONLINE, *OFFLINE], "meta": ["online mix", "offline mix", "route", *ONLINE[:2]]}
    base = rows[["series", "target_time", "lead"]]
    for level, names in members.items():
        walk = (
            np.cumsum(rng.normal(0, 0.05, (len(names), len(base))), axis=1)
            - np.arange(len(names))[:, None] / 3
        )
        share = np.exp(walk) / np.exp(walk).sum(axis=0)
        frames += [base.assign(expert=n, weight=w, level=level) for n, w in zip(names, share, strict=True)]
    return pd.concat(frames, ignore_index=True)


def write_run(folder: Path, *, hours: int = 24 * 60, storms: tuple[int, ...] = (300, 700, 1100)) -> Path:
    """Every file of a run; returns the SPEC of its report."""
    leads = [1, 2, 3]
    rows = backtest_rows(hours, leads, storms)
    backtest = folder / "backtest"
    backtest.mkdir(parents=True)
    rows.to_parquet(backtest / "backtest.parquet")
    weight_rows(rows).to_parquet(backtest / "weights.parquet")
    document = {
        "schema": "modelyard.backtest/1",
        "leads": leads,
        "period": PERIOD,
        "rows": {"all": len(rows), "calm": int((~rows["mutant"]).sum()), "mutant": int(rows["mutant"].sum())},
        "table": backtest_table(rows, leads),
        "regret": {"realised": 120.5, "bound": 410.0, "per_lead": []},
        "excluded": [{"name": "broken_net", "reason": "3 of 900 errors are not finite", "rows": 3}],
        "method": {"name": "boa", "delay": True, "sleeping": ["online mix"]},
        "from": "2013-09-01T00:00:00+00:00",
        "until": "2013-10-30T23:00:00+00:00",
    }
    policy = {
        "schema": "elpa.policy/2",
        "created_at": "2026-01-02T03:04:05+00:00",
        "beta": 0.99,
        "dirty_interval": 3,
        "amplitude_window": 24,
        "mutant_epsilon": 0.31,
        "digests": {"inputs": {"predictions": "sha256:" + "ab" * 32}, "models": {}},
    }
    members = [
        {
            "name": name,
            "group": "online" if name in ONLINE else "offline",
            "status": "ok",
            "attempts": 1,
            "train_s": 1.5 + place,
            "predict_s": 0.4 * place,
            "cpu_s": 2.0 * place,
            "excluded": None,
        }
        for place, name in enumerate((*ONLINE, *OFFLINE))
    ]
    (backtest / "backtest.json").write_text(json.dumps(document))
    (folder / "policy.json").write_text(json.dumps(policy))
    (folder / "members.json").write_text(json.dumps(members))
    spec = {
        "policy": "policy.json",
        "backtest": "backtest",
        "members": "members.json",
        "title": "Departures of New York",
        "out": "report.html",
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.fixture
def elpa_spec(tmp_path: Path) -> Path:
    """The SPEC of a written run of sixty days with three storms."""
    return write_run(tmp_path / "run")


@pytest.fixture(params=[1, 2, 30])
def short_spec(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The SPEC of a run of a few hours without any mutant."""
    return write_run(tmp_path / "short", hours=request.param, storms=())
