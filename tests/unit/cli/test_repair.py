"""`repair`: what cannot be asked."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from modelyard.cli.repair import command
from modelyard.runs.yard import open_yard


@pytest.mark.parametrize("change", ["x", "=1", "x=[1", "x={{", "x=[1]"])
def test_a_change_that_is_none_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    open_yard(tmp_path / ".modelyard", create=True)
    result = CliRunner().invoke(command, ["r", "--set", change])
    assert result.exit_code == 2
    assert "is no NAME=VALUE" in result.output
