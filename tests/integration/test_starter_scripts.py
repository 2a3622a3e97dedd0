"""The starter yard's commands, run as a user would run them, on the real data and on a part of it."""

from __future__ import annotations

import ast
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import modelyard.lifecycle
from modelyard.lifecycle.declaration import read_declaration

STARTER = Path(modelyard.lifecycle.__file__).parent / "starter"
HORIZON = 4
# The part of the data: nine weeks to train on and fifteen days to forecast, with a storm among them.
FIRST, TRAINED_UNTIL, LAST = "2013-04-01T00:00", "2013-06-02T23:00", "2013-06-17T23:00"
# Nothing issued up to this hour may depend on what is observed after it.
CUT = pd.Timestamp("2013-06-08T11:00")
WEATHER = ["temp", "wind_speed", "precip", "visib", "pressure"]

ONLINE_QUICK = ["seasonal_naive", "schedule_ratio"]
ONLINE_SLOW = ["arma_schedule", "components", "ridge_lags", "boosted_lags", "knn_analogue", "river_stream"]
OFFLINE_QUICK = ["fourier_week"]
OFFLINE_SLOW = ["boosted_calendar", "poisson_glm", "mstl", "forest_calendar"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecaster:
    """A script with its trained model and what it forecast."""

    script: Path
    model: Path
    forecasts: pd.DataFrame

    @property
    def is_online(self) -> bool:
        return self.script.stem in ONLINE_QUICK + ONLINE_SLOW


def run(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def succeed(script: Path, *arguments: object) -> None:
    """Run a script that must end well and have nothing to complain of."""
    done = run(script, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), f"{script.name} {arguments}: {done.stderr}"


def predict(script: Path, model: Path, data: Path, out: Path) -> pd.DataFrame:
    """Run a predict command and read what it wrote."""
    succeed(script, "predict", "--data", data, "--model", model, "--horizon", HORIZON, "--out", out)
    return pd.read_csv(out, parse_dates=["origin", "target_time"])


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter as `init` would leave it."""
    folder = tmp_path_factory.mktemp("starter") / "yard"
    shutil.copytree(STARTER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def data(yard: Path) -> Path:
    """What prepare.py made."""
    succeed(yard / "prepare.py", "--out", yard / "data")
    return yard / "data"


@pytest.fixture(scope="module")
def part(data: Path) -> Path:
    """A folder with train.csv and history.csv of the part, and the same history changed after CUT."""
    history = read(data / "history.csv")[FIRST:LAST]
    folder = data.parent / "part"
    folder.mkdir()
    history[:TRAINED_UNTIL].to_csv(folder / "train.csv")
    history.to_csv(folder / "history.csv")
    later = history.index > CUT
    rng = np.random.default_rng(3)
    history.loc[later, "y"] = 150 - history.loc[later, "y"]
    history.loc[later, WEATHER] += rng.normal(scale=20, size=(int(later.sum()), len(WEATHER)))
    history.to_csv(folder / "changed.csv")
    return folder


@pytest.fixture(scope="module")
def train(yard: Path, part: Path) -> Callable[[str], Forecaster]:
    """Trains a script on the part, once, and lets it forecast from the unchanged history."""

    @functools.cache
    def trained(name: str) -> Forecaster:
        script, model = yard / f"{name}.py", part / name / "model.joblib"
        succeed(
            script, "train", "--data", part / "train.csv", "--save", model, "--seed", 7, "--horizon", HORIZON
        )
        forecasts = predict(script, model, part / "history.csv", model.with_name("predictions.csv"))
        return Forecaster(script=script, model=model, forecasts=forecasts)

    return trained


@pytest.fixture(
    params=[
        *ONLINE_QUICK,
        *OFFLINE_QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in ONLINE_SLOW + OFFLINE_SLOW),
    ],
)
def forecaster(request: pytest.FixtureRequest, train: Callable[[str], Forecaster]) -> Forecaster:
    """Each script, trained."""
    return train(request.param)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, index_col="time", parse_dates=["time"])


def test_history_holds_every_hour_of_the_year(data: Path) -> None:
    history = read(data / "history.csv")
    expected = pd.date_range("2013-01-01T00:00", "2013-12-31T23:00", freq="h")
    assert history.index.equals(expected.rename("time"))
    assert history[["y", "scheduled"]].notna().all(axis=None)
    assert (history[["y", "scheduled"]] >= 0).all(axis=None)


def test_departures_are_those_that_took_place(data: Path) -> None:
    history = read(data / "history.csv")
    # 336,776 flights in the timetable, 8,255 cancelled; a few left after the year's end
    assert history["scheduled"].sum() == 336_776
    assert 0 <= 336_776 - 8_255 - history["y"].sum() < 20
    storm = history.loc["2013-02-09"]
    assert storm["y"].sum() < storm["scheduled"].sum() / 2


def test_train_and_truth_are_the_two_halves_of_history(data: Path) -> None:
    history, train = read(data / "history.csv"), read(data / "train.csv")
    truth = pd.read_csv(data / "truth.csv", index_col="target_time", parse_dates=["target_time"])
    pd.testing.assert_frame_equal(train, history[:"2013-06-30T23:00"], check_freq=False)
    assert truth.index[0] == pd.Timestamp("2013-07-01T00:00")
    assert truth["y"].tolist() == history["2013-07-01":]["y"].tolist()


def test_missing_weather_is_filled_from_the_past_only(data: Path) -> None:
    history = read(data / "history.csv")
    assert history[WEATHER].iloc[0].isna().all()  # the stations' first hour is 01:00: nothing to repeat
    assert history[WEATHER].iloc[1:].notna().all(axis=None)
    last_observed = history.loc["2013-12-30T18:00", WEATHER]  # 23:00 UTC
    assert (history.loc["2013-12-31T00:00":, WEATHER] == last_observed).all(axis=None)


def test_forecasts_are_full_finite_and_aligned(forecaster: Forecaster, part: Path) -> None:
    forecasts = forecaster.forecasts
    assert list(forecasts.columns) == ["origin", "lead", "target_time", "y_pred"]
    assert np.isfinite(forecasts["y_pred"]).all()
    assert (forecasts["y_pred"] >= 0).all()
    assert (
        forecasts["target_time"] - forecasts["origin"] == pd.to_timedelta(forecasts["lead"], unit="h")
    ).all()
    origins = [TRAINED_UNTIL]
    if forecaster.is_online:
        origins = pd.date_range(TRAINED_UNTIL, pd.Timestamp(LAST) - pd.Timedelta(hours=1), freq="h")
    expected = {
        (origin, target)
        for origin in map(pd.Timestamp, origins)
        for target in pd.date_range(origin, LAST, freq="h")[1 : HORIZON + 1 if forecaster.is_online else None]
    }
    made = list(zip(forecasts["origin"], forecasts["target_time"], strict=True))
    assert len(made) == len(set(made))
    assert set(made) == expected


def test_forecasts_are_better_than_none(forecaster: Forecaster, part: Path) -> None:
    y = read(part / "history.csv")["y"]
    errors = (forecaster.forecasts["y_pred"] - forecaster.forecasts["target_time"].map(y)).abs()
    mean = read(part / "train.csv")["y"].mean()
    assert errors.mean() < 0.5 * (y[TRAINED_UNTIL:] - mean).abs().mean()


def test_a_forecast_knows_nothing_after_its_origin(
    forecaster: Forecaster, part: Path, tmp_path: Path
) -> None:
    changed = predict(forecaster.script, forecaster.model, part / "changed.csv", tmp_path / "predictions.csv")
    early = forecaster.forecasts["origin"] <= CUT
    pd.testing.assert_frame_equal(changed[early], forecaster.forecasts[early], check_exact=True)
    if forecaster.is_online:  # later forecasts do see the change, so the comparison above can fail
        moved = (changed["y_pred"] - forecaster.forecasts["y_pred"]).abs()[~early]
        assert moved.mean() > 1
    else:
        assert early.all()


def test_a_longer_horizon_than_trained_is_refused(yard: Path, part: Path, tmp_path: Path) -> None:
    script, model = yard / "schedule_ratio.py", tmp_path / "model.joblib"
    succeed(script, "train", "--data", part / "train.csv", "--save", model, "--horizon", 2)
    out = tmp_path / "predictions.csv"
    done = run(
        script, "predict", "--data", part / "history.csv", "--model", model, "--horizon", 3, "--out", out
    )
    assert done.returncode == 1
    assert "train with --horizon 3" in done.stderr
    assert not out.exists()


def test_a_series_with_a_gap_is_refused(yard: Path, part: Path, tmp_path: Path) -> None:
    read(part / "train.csv").drop(CUT - pd.Timedelta(days=20)).to_csv(tmp_path / "gap.csv")
    done = run(
        yard / "seasonal_naive.py",
        "train",
        "--data",
        tmp_path / "gap.csv",
        "--save",
        tmp_path / "model.joblib",
    )
    assert done.returncode == 1
    assert "every hour once" in done.stderr


def test_the_yard_declares_every_script_and_no_other(tmp_path: Path) -> None:
    declaration = read_declaration(STARTER / "yard.yaml", tmp_path)
    scripts = {path.stem for path in STARTER.glob("*.py")} - {"prepare", "departures"}
    groups = {member.name: member.group for member in declaration.members}
    assert groups == {
        **dict.fromkeys(ONLINE_QUICK + ONLINE_SLOW, "online"),
        **dict.fromkeys(OFFLINE_QUICK + OFFLINE_SLOW, "offline"),
    }
    assert set(groups) == scripts
    for member in declaration.members:
        for command in (member.train, member.predict):
            assert command.startswith(f"{{python}} {{yard_dir}}/{member.name}.py ")


@pytest.mark.parametrize("script", sorted(STARTER.glob("*.py")), ids=lambda path: path.stem)
def test_scripts_stand_alone(script: Path) -> None:
    tree = ast.parse(script.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.split(".")[0] == "modelyard"}
