"""`train`: dry by default, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from modelyard.core.errors import DocumentError

Call = Callable[..., Result]
Pool = Callable[..., Path]


def test_without_execute_nothing_runs(call: Call, pool: Pool, tmp_path: Path) -> None:
    result = call("train", "--config", pool(a="touch ran", b="sh -c 'exit 1' '{model_name} x'"))
    manifest = tmp_path / ".modelyard" / "runs" / "pool" / "manifest.json"
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.splitlines() == [
        "a",
        "    touch ran",
        "b",
        "    sh -c 'exit 1' 'b x'",
        f"2 planned, none run (that takes --execute); {manifest}",
    ]
    assert not (tmp_path / "ran").exists()
    assert {model["status"] for model in json.loads(manifest.read_bytes())["models"]} == {"planned"}


@pytest.mark.parametrize("execute", [False, True])
def test_json_is_the_manifest(call: Call, pool: Pool, tmp_path: Path, execute: bool) -> None:
    given = ["--config", pool(a="true"), "--run-dir", tmp_path / "run", "--json"]
    result = call("train", *given, *(["--execute"] if execute else []))
    assert result.exit_code == 0 and result.stderr == ""
    assert json.loads(result.stdout) == json.loads((tmp_path / "run" / "manifest.json").read_bytes())
    assert [m["status"] for m in json.loads(result.stdout)["models"]] == ["ok" if execute else "planned"]


def test_what_is_lacking_is_told_dry_and_refused_for_real(call: Call, pool: Pool) -> None:
    config = pool(a="no-such-program")
    dry = call("train", "--config", config)
    assert dry.exit_code == 0 and "lacking here: " in dry.stderr and '"no-such-program"' in dry.stderr
    real = call("train", "--config", config, "--execute")
    assert isinstance(real.exception, DocumentError) and "no-such-program" in str(real.exception)


@pytest.mark.parametrize(
    ("options", "status"), [((), 1), (("--continue-on-error",), 3)], ids=["stop", "continue"]
)
def test_the_exit_status_tells_how_it_went(
    call: Call, pool: Pool, options: tuple[str, ...], status: int
) -> None:
    result = call("train", "--config", pool(a="true", b="false"), "--execute", "--jobs", "1", *options)
    assert result.exit_code == status
    assert result.stdout.startswith("failed; manifest: " if status == 1 else "partial; manifest: ")


def test_two_places_for_the_manifest(call: Call, pool: Pool, tmp_path: Path) -> None:
    given = ["--run-dir", tmp_path / "run", "--manifest-out", tmp_path / "out.json"]
    result = call("train", "--config", pool(a="true"), *given, "--execute")
    assert result.stdout == f"succeeded; manifest: {tmp_path / 'out.json'}\n"
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "run" / "manifest.json").read_bytes()
