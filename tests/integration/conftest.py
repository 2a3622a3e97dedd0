"""A small yard with real commands, for the tests that run `up`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

MODELYARD = (sys.executable, "-m", "modelyard.cli.main")
Run = Callable[..., subprocess.CompletedProcess[str]]

#: Makes 30 days of an hourly series with a daily season, a level that drifts and two bursts.
PREPARE = """
import math, sys
rows = ["target_time,y"]
for hour in range(720):
    burst = 40.0 if hour % 24 in (9, 10) and hour // 24 % 9 == 4 else 0.0
    value = 100 + 30 * math.sin(hour * math.tau / 24) + hour * 0.05 + burst + 3 * math.sin(hour * 1.7)
    rows.append(f"2024-01-{hour // 24 + 1:02d}T{hour % 24:02d}:00,{value:.6f}")
open(sys.argv[1], "w").write("\\n".join(rows) + "\\n")
open(sys.argv[2], "w").write("\\n".join([rows[0], *rows[73:]]) + "\\n")
"""

#: Forecasts from the newest observation (online), or from the first three days alone (offline).
MEMBER = """
import sys
kind, history, out, horizon = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
rows = [line.split(",") for line in open(history).read().splitlines()[1:]]
times, y = [r[0] for r in rows], [float(r[1]) for r in rows]
lines = ["origin,lead,target_time,y_pred"]
if kind == "offline":
    start = 72
    for t in range(start, len(y)):
        lines.append(f"{times[start - 1]},{t - start + 1},{times[t]},{0.8 * y[48 + t % 24]}")
else:
    for origin in range(71, len(y)):
        for lead in range(1, horizon + 1):
            t = origin + lead
            if t < len(y):
                value = {"naive": y[origin], "seasonal": y[t - 24], "nan": float("nan")}[kind]
                lines.append(f"{times[origin]},{lead},{times[t]},{value}")
open(out, "w").write("\\n".join(lines) + "\\n")
"""


@pytest.fixture
def modelyard(tmp_path: Path) -> Run:
    """Run the command line in the test's folder."""

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **more.pop("environment", {})}
        return subprocess.run(
            [*MODELYARD, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=more.pop("timeout", 180),
            **more,
        )

    return run


@pytest.fixture
def small_yard(tmp_path: Path) -> Callable[..., Path]:
    """Write a yard of three members and whatever is added."""

    def write(*extra: dict[str, Any], **top: Any) -> Path:
        (tmp_path / "prepare.py").write_text(PREPARE)
        (tmp_path / "member.py").write_text(MEMBER)
        members = [_member("naive", "online"), _member("seasonal", "online"), _member("offline", "offline")]
        document = {
            "schema": "modelyard.yard/1",
            "name": "small",
            "horizon": 2,
            "period": 24,
            "prepare": [
                {
                    "name": "series",
                    "run": "{python} prepare.py {data_dir}/history.csv {data_dir}/truth.csv",
                    "outputs": ["{data_dir}/history.csv", "{data_dir}/truth.csv"],
                }
            ],
            "data": {"history": "{data_dir}/history.csv", "truth": "{data_dir}/truth.csv"},
            "models": [*members, *extra],
            "ensemble": {"method": "auto", "beta": 0.98, "validation_until": "2024-01-16T00:00"},
            "disk_gib": 0.01,
            **top,
        }
        path = tmp_path / "yard.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    return write


@pytest.fixture
def member() -> Callable[..., dict[str, Any]]:
    """Declare a member whose predict command is the small forecaster."""
    return _member


@pytest.fixture
def run_dir(tmp_path: Path) -> Callable[[], Path]:
    """The directory of the one run of the test's yard."""

    def find() -> Path:
        (found,) = (tmp_path / ".modelyard" / "runs").iterdir()
        return found

    return find


@pytest.fixture
def read() -> Callable[[Path], Any]:
    """Read a JSON file."""
    return lambda path: json.loads(path.read_bytes())


def _member(kind: str, group: str, **more: Any) -> dict[str, Any]:
    return {
        "name": kind,
        "group": group,
        "predict": "{python} member.py " + kind + " {history} {model_dir}/predictions.csv {horizon}",
        "outputs": {"predictions": "{model_dir}/predictions.csv"},
        **more,
    }
