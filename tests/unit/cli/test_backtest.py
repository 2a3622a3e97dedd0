"""The backtest command, and integrate over a yard, on tables as a run leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from modelyard.cli.backtest import command as backtest
from modelyard.cli.integrate import command as integrate
from modelyard.cli.options import execution_options
from modelyard.core.files import write_json
from modelyard.ensemble.policies.policy import read_policy
from modelyard.lifecycle.planning import Places
from modelyard.lifecycle.up import prepare_up
from modelyard.results.tables import write_predictions, write_truth

START, HOUR, STEPS = pd.Timestamp("2024-01-01", tz="UTC"), pd.Timedelta(hours=1), 150
YARD = """\
name: pool
horizon: 1
period: 24
data: {truth: truth.csv, step: 1h}
models:
  - name: naive
    group: online
    predict: "{python} -c pass"
    outputs: {predictions: "{model_dir}/p.csv"}
  - name: half
    group: online
    predict: "{python} -c pass"
    outputs: {predictions: "{model_dir}/p.csv"}
  - name: shape
    group: offline
    predict: "{python} -c pass"
    outputs: {predictions: "{model_dir}/p.csv"}
ensemble:
  validation_until: 2024-01-05T00:00:00+00:00
"""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A yard.yaml whose run has collected its tables and its policy."""
    folder = tmp_path_factory.mktemp("yard")
    path = folder / "yard.yaml"
    path.write_text(YARD)
    y = 20 + 6 * np.sin(2 * np.pi * np.arange(STEPS) / 24) + np.random.default_rng(0).normal(0, 1, STEPS)
    times = START + HOUR * np.arange(STEPS)
    (folder / "truth.csv").write_text(pd.DataFrame({"target_time": times, "y": y}).to_csv(index=False))
    prepared = prepare_up(path, folder / "runs", execution_options())
    places = Places(run_dir=prepared.declaration.scope.run_dir)
    late = np.concatenate([[np.nan], y[:-1]])
    said = {
        "naive": late,
        "half": 0.5 * late + 10,
        "shape": 15 + 5 * np.sin(2 * np.pi * np.arange(STEPS) / 24),
    }
    groups = {"naive": "online", "half": "online", "shape": "offline"}
    parts = [
        pd.DataFrame(
            {"model": name, "series": "main", "origin": times - HOUR, "lead": 1, "target_time": times}
            | {"issued_at": times - HOUR, "y_pred": values}
        ).dropna()
        for name, values in said.items()
    ]
    write_predictions(places.predictions, pd.concat(parts, ignore_index=True))
    write_truth(places.truth, pd.DataFrame({"series": "main", "target_time": times, "y": y}))
    spec = {
        "predictions": str(places.predictions),
        "truth": str(places.truth),
        "groups": groups,
        "settings": {"horizon": 1, "period": 24, "step_s": 3600.0, "validation_until": "2024-01-05T00:00Z"},
        "policy": str(places.policy),
        "backtest": str(places.backtest),
    }
    write_json(places.spec("integrate"), spec)
    return path


def run(command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def at(yard: Path) -> tuple[str, str]:
    return "--yard", str(yard.parent)


def test_a_yard_is_integrated_and_backtested_against_a_peer(yard: Path, tmp_path: Path) -> None:
    pytest.importorskip("river")
    policy, page = tmp_path / "policy.json", tmp_path / "out.html"
    run(integrate, yard, *at(yard), "--method", "mlpoly", "--beta", "0.95", "--output", policy)
    assert (read_policy(policy).method.name, read_policy(policy).beta) == ("mlpoly", 0.95)
    told = run(backtest, yard, *at(yard), "--policy", policy, "--against", "river", "--report", page)
    for name in ("the policy", "river EWARegressor", "best convex mixture in hindsight", "best switching"):
        assert name in told
        assert name in page.read_text()


def test_hindsight_is_never_worse_than_the_best_expert(yard: Path, tmp_path: Path) -> None:
    policy, page = tmp_path / "policy.json", tmp_path / "out.html"
    run(integrate, yard, *at(yard), "--output", policy)
    assert read_policy(policy).method.name == "committee"
    assert read_policy(policy).regret_certificate["held"] is True
    table = json.loads(run(backtest, yard, *at(yard), "--policy", policy, "--report", page, "--json"))[
        "table"
    ]
    mae = {
        row["kind"]: row["mae"]
        for row in table
        if row["rows"] == "all" and row["lead"] is None and row["kind"] != "expert"
    }
    assert mae["best_convex_hindsight"] <= mae["best_single_hindsight"]
    assert mae["best_switching_hindsight"] <= mae["best_single_hindsight"]


def test_beta_auto_is_chosen_and_told(yard: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    run(integrate, yard, *at(yard), "--beta", "auto", "--method", "boa", "--output", policy)
    assert "blocks" in " ".join(read_policy(policy).warnings)


@pytest.mark.parametrize("beta", ["0", "1.5", "long"])
def test_a_memory_that_cannot_be_is_refused(yard: Path, tmp_path: Path, beta: str) -> None:
    asked = [str(yard), "--beta", beta, "--output", str(tmp_path / "p.json")]
    result = CliRunner().invoke(integrate, asked)
    assert result.exit_code == 2
    assert "or auto" in result.output


def test_a_yard_or_a_config_is_needed(tmp_path: Path) -> None:
    result = CliRunner().invoke(integrate, ["--output", str(tmp_path / "p.json")])
    assert "give a YARD.YAML, or --config" in result.output


def test_a_peer_that_is_not_known_and_a_run_that_is_not_there(yard: Path, tmp_path: Path) -> None:
    policy, page = tmp_path / "policy.json", str(tmp_path / "o.html")
    run(integrate, yard, *at(yard), "--output", policy)
    asked = [str(yard), *at(yard), "--policy", str(policy), "--against", "opera", "--report", page]
    assert "river, sktime" in str(CliRunner().invoke(backtest, asked).exception)
    asked = [str(yard), "--yard", str(tmp_path), "--report", page]
    assert "modelyard up" in str(CliRunner().invoke(backtest, asked).exception)
