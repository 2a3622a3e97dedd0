"""`merge extract-lora`: text, JSON, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from tests.unit.merging.made import llama, written

from modelyard.core.errors import CheckpointError, MergeError
from modelyard.merging.lora import read_adapter

Call = Callable[..., Result]
USAGE = 2
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def models(tmp_path: Path) -> None:
    """A base, and a fine-tune of all its tensors, in the test's folder."""
    base = llama(0, layers=12)
    written(tmp_path / "base", base)
    written(tmp_path / "tuned", llama(1, layers=12, around=base, spread=0.01))


@pytest.mark.usefixtures("models")
def test_what_is_lost_most_comes_first(call: Call) -> None:
    result = call("merge", "extract-lora", "tuned", "base", "out", "--rank", "3")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    lost = [
        (1 - float(line.split()[3].rstrip("%")) / 100) * float(line.split()[2]) ** 2 for line in lines[1:21]
    ]
    np.testing.assert_allclose(lost, sorted(lost, reverse=True), rtol=1e-3)
    assert lines[21] == "... and 6 more; --json has all"
    assert lines[-2].startswith("out: ") and lines[-2].endswith("of the change in 26 tensors")
    assert lines[-1].startswith("changed, but not what an adapter can hold: model.layers.0.input_layernorm")
    assert "100 %  39 of 39 tensors" in result.stderr
    assert read_adapter(Path("out")).delta(QUERY) is not None


@pytest.mark.usefixtures("models")
def test_json_has_every_tensor_and_no_progress(call: Call) -> None:
    arguments = ("--include", r"layers\.\d\.", "--exclude", "norm", "--json")
    result = call("merge", "extract-lora", "tuned", "base", "out", *arguments)
    record = json.loads(result.stdout)
    assert result.stderr == "" and record["out"] == "out"
    assert len(record["tensors"]) == 20 and record["left_out"] == record["unchanged"] == []
    assert {each["rank"] for each in record["tensors"]} == {8}  # the matrices have no more
    assert record["explained"] == pytest.approx(1.0)


@pytest.mark.usefixtures("models")
def test_what_cannot_be_done_is_told(call: Call) -> None:
    assert call("merge", "extract-lora", "tuned", "base").exit_code == USAGE
    assert call("merge", "extract-lora", "tuned", "base", "out", "--rank", "0").exit_code == USAGE
    assert isinstance(call("merge", "extract-lora", "tuned", "none", "out").exception, CheckpointError)
    assert isinstance(call("merge", "extract-lora", "base", "base", "out").exception, MergeError)
    assert isinstance(call("merge", "extract-lora", "tuned", "base", "base").exception, MergeError)
