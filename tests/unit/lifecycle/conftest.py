"""Yards as documents, changed at will."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from modelyard.core.errors import DocumentError
from modelyard.lifecycle.declaration import Declaration, read_declaration
from modelyard.results.tables import write_predictions, write_truth

RUN_DIR = Path("/runs/r")


def model(name: str, group: str = "online", **fields: Any) -> dict[str, Any]:
    """A member that a yard accepts."""
    return {
        "name": name,
        "group": group,
        "train": "fit {dataset} {model_dir}/model",
        "predict": "tell {test_dataset} {model_dir}/out.csv",
        "outputs": {"model": "{model_dir}/model", "predictions": "{model_dir}/out.csv"},
        **fields,
    }


@pytest.fixture
def declare_model() -> Callable[..., dict[str, Any]]:
    """A member of a yard, with changes."""
    return model


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a sound yard of two members with changes; a change to None leaves the key out."""

    def write(**changes: Any) -> Path:
        document = {
            "schema": "modelyard.yard/1",
            "name": "small",
            "horizon": 3,
            "data": {"dataset": "d.csv", "test_dataset": "t.csv", "truth": "{data_dir}/truth.csv"},
            "prepare": [
                {"name": "series", "run": "make {data_dir}", "outputs": ["{data_dir}/truth.csv"]},
            ],
            "models": [model("near"), model("far", "offline")],
            "ensemble": {"validation_until": "2024-01-01"},
            **changes,
        }
        path = tmp_path / "yard.yaml"
        said = {key: value for key, value in document.items() if value is not None}
        path.write_text(yaml.safe_dump(said, sort_keys=False))
        return path

    return write


@pytest.fixture
def declared(write: Callable[..., Path]) -> Callable[..., Declaration]:
    """Read a sound yard with changes."""
    return lambda **changes: read_declaration(write(**changes), RUN_DIR)


@pytest.fixture
def refused(write: Callable[..., Path]) -> Callable[..., list[str]]:
    """The faults of a yard with changes, each without the file that it names."""

    def faults(**changes: Any) -> list[str]:
        path = write(**changes)
        with pytest.raises(DocumentError) as caught:
            read_declaration(path, RUN_DIR)
        told = [str(fault) for fault in caught.value.faults]
        assert all(line.startswith(f"{path}: ") for line in told)
        return [line.removeprefix(f"{path}: ") for line in told]

    return faults


@pytest.fixture
def write_drift() -> Callable[..., None]:
    """Write the tables of 35 days of hourly forecasts of two series, a hundredfold apart.

    Of each named model, by how much its errors grow in the last seven days.
    """

    def write(predictions: Path, truth: Path, **grow: float) -> None:
        hours = pd.date_range("2024-01-01", periods=35 * 24, freq="h", tz="UTC")
        rng = np.random.default_rng(7)
        frames, truths = [], []
        for series, size in (("small", 1.0), ("large", 100.0)):
            truths.append(pd.DataFrame({"series": series, "target_time": hours, "y": 0.0}))
            for model, factor in grow.items():
                error = size * rng.standard_normal(len(hours))
                error[-7 * 24 :] *= factor
                told = {"series": series, "origin": hours - pd.Timedelta("1h"), "lead": 1}
                rows = {"model": model, **told, "target_time": hours, "y_pred": error}
                frames.append(pd.DataFrame(rows))
        joined = pd.concat(frames, ignore_index=True)
        write_predictions(predictions, joined.assign(issued_at=joined["origin"]))
        write_truth(truth, pd.concat(truths, ignore_index=True))

    return write
