"""Yards as documents, changed at will."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.core.errors import DocumentError
from modelyard.lifecycle.declaration import Declaration, read_declaration

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
