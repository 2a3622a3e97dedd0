"""The integrate command beside its own config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelyard.cli.integrate import command


@pytest.mark.parametrize("kind", ["same", "indirect", "link"])
def test_a_policy_never_replaces_its_config(tmp_path: Path, kind: str) -> None:
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"models": [{"name": "a", "ewma_score": 1.0}]}))
    before = config.read_bytes()
    output = {"same": config, "indirect": tmp_path / "x" / ".." / "c.json", "link": tmp_path / "l.json"}[kind]
    if kind == "link":
        output.hardlink_to(config)

    result = CliRunner().invoke(command, ["--config", str(config), "--output", str(output)])

    assert result.exit_code == 2
    assert "--output" in result.output
    assert config.read_bytes() == before
    assert output.resolve().read_bytes() == before
