"""`init`: a starter yard, told file by file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result


def test_a_yard_is_written_and_the_next_step_told(call: Callable[..., Result], tmp_path: Path) -> None:
    first = call("init", "mine")
    assert first.exit_code == 0
    written = [Path(line) for line in first.stdout.splitlines()]
    assert Path("mine/yard.yaml") in written and all((tmp_path / path).is_file() for path in written)
    assert first.stderr == "next: modelyard plan mine/yard.yaml ; modelyard up mine/yard.yaml\n"
    assert call("init", "mine").stdout == "mine: everything is here already\n"


def test_without_a_folder_it_is_written_here(call: Callable[..., Result], tmp_path: Path) -> None:
    assert call("init").exit_code == 0
    assert (tmp_path / "yard.yaml").is_file()
