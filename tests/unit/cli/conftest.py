"""Calling commands in this process, on small files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from modelyard.cli.main import cli


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call `modelyard` with arguments in the test's folder; an error of ours is the result's exception."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli, [str(each) for each in arguments])


@pytest.fixture
def pool(tmp_path: Path) -> Callable[..., Path]:
    """Write an ELPA training file of models with these commands."""

    def write(**commands: str) -> Path:
        models = [{"name": name, "train_cmd": command} for name, command in commands.items()]
        path = tmp_path / "pool.json"
        path.write_text(json.dumps({"models": models}))
        return path

    return write


@pytest.fixture
def small_yard(tmp_path: Path) -> Callable[..., Path]:
    """Write a yard of one member whose commands this machine has."""

    def write(**changes: Any) -> Path:
        (tmp_path / "truth.csv").write_text("target_time,y\n2024-01-01T00:00,1\n")
        document = {
            "name": "small",
            "horizon": 1,
            "disk_gib": 0.001,
            "data": {"truth": "truth.csv"},
            "models": [
                {
                    "name": "near",
                    "train": "echo 'x;y' {tag}",
                    "predict": "cp nothing {model_dir}/out.csv",
                    "outputs": {"predictions": "{model_dir}/out.csv"},
                }
            ],
            "context": {"tag": "a b"},
            "ensemble": {"validation_until": "2024-01-01"},
            **changes,
        }
        path = tmp_path / "yard.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return write
