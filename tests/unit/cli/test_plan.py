"""`plan`, and `up --dry-run`, which is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from modelyard.cli.main import REFUSED

Call = Callable[..., Result]
WAYS = pytest.mark.parametrize("way", [("plan",), ("up", "--dry-run")], ids=" ".join)
STEPS = ["train/near", "predict/near", "collect", "integrate", "backtest", "report"]


@WAYS
def test_every_step_is_shown_with_what_it_waits_for_and_its_command(
    call: Call, small_yard: Callable[..., Path], tmp_path: Path, way: tuple[str, ...]
) -> None:
    result = call(*way, small_yard())
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == ""
    assert [line.partition("  ")[0] for line in lines[:-1:2]] == STEPS
    assert lines[1] == "    echo 'x;y' 'a b'"
    assert lines[2] == "predict/near  after train/near"
    assert lines[-1].startswith("6 steps; run small-")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["truth.csv", "yard.yaml"]


@WAYS
def test_what_is_lacking_here_is_told_and_is_the_exit_status(
    call: Call, small_yard: Callable[..., Path], tmp_path: Path, way: tuple[str, ...]
) -> None:
    path = small_yard(data={"truth": "none.csv"})
    result = call(*way, path)
    assert result.exit_code == REFUSED
    assert result.stderr.startswith("lacking here: ") and str(tmp_path / "none.csv") in result.stderr
    assert "6 steps" in result.stdout


@WAYS
def test_the_plan_for_machines(call: Call, small_yard: Callable[..., Path], way: tuple[str, ...]) -> None:
    plain = json.loads(call(*way, small_yard(), "--json").stdout)
    assert set(plain) == {"run", "plan", "requests", "lacking"} and plain["lacking"] == []
    assert [step["name"] for step in plain["plan"]["steps"]] == STEPS
    assert plain["plan"]["schema"] == "modelyard.plan/1" and plain["plan"]["run_dir"].endswith(plain["run"])
    assert [each["step"] for each in plain["requests"]] == STEPS
    assert plain["requests"][0]["request"]["argv"] == ["echo", "x;y", "a b"]
    lacking = call(*way, small_yard(data={"truth": "none.csv"}), "--json")
    assert lacking.exit_code == REFUSED and len(json.loads(lacking.stdout)["lacking"]) == 1


def test_a_shell_command_is_shown_as_it_is(call: Call, small_yard: Callable[..., Path]) -> None:
    made = [{"name": "p", "run": "echo {tag} | cat", "shell": True}]
    assert "    echo 'a b' | cat\n" in call("plan", small_yard(prepare=made)).stdout
