"""Joining prediction files: order, names, and that nothing is left behind by a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from modelyard.core.errors import DocumentError, TableError
from modelyard.results.collect import collect, read_spec
from modelyard.results.tables import read_predictions, read_truth

HEADER = "origin,lead,target_time,y_pred\n"


def write_yard(folder: Path, **changes: object) -> Path:
    (folder / "truth.csv").write_text("target_time,y\n2013-07-01T02:00,2\n2013-07-01T01:00,1\n")
    (folder / "b.csv").write_text(
        HEADER + "2013-07-01T01:00,1,2013-07-01T02:00,4\n2013-07-01,1,2013-07-01T01:00,3\n"
    )
    (folder / "a.csv").write_text(
        HEADER + "2013-07-01,2,2013-07-01T02:00,2\n2013-07-01,1,2013-07-01T01:00,1\n"
    )
    spec: dict[str, object] = {
        "models": [{"name": "beta", "path": "b.csv"}, {"name": "alpha", "path": str(folder / "a.csv")}],
        "truth": "truth.csv",
        "predictions_out": "out/predictions.parquet",
        "truth_out": "out/truth.parquet",
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec | changes))
    return path


def test_the_table_is_sorted_by_model_and_origin(tmp_path: Path) -> None:
    collected = collect(read_spec(write_yard(tmp_path)))

    frame = read_predictions(tmp_path / "out/predictions.parquet")
    assert frame["model"].tolist() == ["alpha", "alpha", "beta", "beta"]
    assert frame["y_pred"].tolist() == [1, 2, 3, 4]
    assert read_truth(tmp_path / "out/truth.parquet")["y"].tolist() == [1, 2]
    assert collected.rows == {"alpha": 2, "beta": 2} and collected.truth_rows == 2


def test_the_name_in_the_spec_wins_over_a_model_column(tmp_path: Path) -> None:
    spec = write_yard(tmp_path)
    pd.read_csv(tmp_path / "a.csv").assign(model="liar").to_csv(tmp_path / "a.csv", index=False)

    collect(read_spec(spec))

    assert set(read_predictions(tmp_path / "out/predictions.parquet")["model"]) == {"alpha", "beta"}


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    spec = read_spec(write_yard(tmp_path))
    collect(spec)
    first = spec.predictions_out.read_bytes(), spec.truth_out.read_bytes()

    pd.read_csv(tmp_path / "b.csv").iloc[::-1].to_csv(tmp_path / "b.csv", index=False)
    collect(spec)

    assert (spec.predictions_out.read_bytes(), spec.truth_out.read_bytes()) == first


@pytest.mark.parametrize("broken", ["", HEADER, HEADER + "2013-07-01,1,soon,3\n"])
def test_a_failure_touches_neither_table(tmp_path: Path, broken: str) -> None:
    spec = read_spec(write_yard(tmp_path))
    collect(spec)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "b.csv").write_text(broken)

    with pytest.raises(TableError):
        collect(spec)

    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_every_fault_of_a_spec_is_told_at_once(tmp_path: Path) -> None:
    twice = [{"name": "alpha", "path": "a.csv"}, {"name": "alpha", "pth": "b.csv"}]

    with pytest.raises(DocumentError) as refused:
        read_spec(write_yard(tmp_path, models=twice, truth=7))

    text = str(refused.value)
    for telling in ("did you mean path?", "models[1].path: is missing", "is named twice", "truth = 7"):
        assert telling in text


def test_a_spec_without_models_or_without_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="name at least one model"):
        read_spec(write_yard(tmp_path, models=[]))
    with pytest.raises(DocumentError, match="does not exist"):
        read_spec(tmp_path / "absent.json")


def test_the_command_tells_its_counts_and_its_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelyard.results", "collect", str(write_yard(tmp_path))]

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"rows": {"alpha": 2, "beta": 2}, "truth_rows": 2}

    (tmp_path / "b.csv").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1 and failed.stdout == ""
    assert "b.csv: there is no such file" in failed.stderr and "Traceback" not in failed.stderr
