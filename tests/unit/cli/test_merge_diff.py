"""`merge diff` and `merge inspect`: text, JSON, pictures, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from tests.unit.merging.made import llama, ref, source, written

from modelyard.core.errors import CheckpointError, MergeError
from modelyard.merging.engine import MergeOptions, run_merge
from modelyard.merging.planning import plan_merge
from modelyard.merging.recipe import Recipe

Call = Callable[..., Result]
USAGE = 2


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """A base, two fine-tunes of it, and their merge in the test's folder."""
    base = llama(0, layers=12)
    found = {"base": written(tmp_path / "base", base)}
    for seed, name in enumerate("ab", start=1):
        found[name] = written(tmp_path / name, llama(seed, layers=12, around=base, spread=0.01))
    sources = tuple(source(found[n], weight=w) for n, w in (("a", 0.7), ("b", 0.2)))
    recipe = Recipe(method="task_arithmetic", base_model=ref(found["base"]), models=sources)
    plan = plan_merge(recipe, file="recipe.yml", folder=Path())
    found["out"] = run_merge(plan, tmp_path / "out", MergeOptions()).out
    return found


def test_the_tensors_that_differ_most_come_first(call: Call, models: dict[str, Path]) -> None:
    result = call("merge", "diff", "a", "b")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    shares = [float(line.split()[1]) for line in lines[1:21]]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) > 15
    assert lines[21] == "... and 19 more; --json has all"
    layers = [line.split()[0] for line in lines if line.startswith("model.layers") and ".weight" not in line]
    assert layers == [f"model.layers.{n}" for n in range(12)]
    assert lines[-1].split()[0] == "whole" and "conflicts" not in result.stdout
    assert "100 %  39 of 39 tensors" in result.stderr


def test_json_has_everything_and_no_progress(call: Call, models: dict[str, Path]) -> None:
    result = call("merge", "diff", "a", "b", "--base", "base", "--json")
    record = json.loads(result.stdout)
    assert result.stderr == "" and record["hints"] == []
    assert len(record["tensors"]) == 39 and len(record["layers"]) == 12 and len(record["modules"]) == 6
    assert list(record["layers"])[-1] == "model.layers.11"
    whole = record["whole"]
    assert whole["elements"] == sum(each["elements"] for each in record["tensors"].values())
    assert whole["sign_conflict_share"] == whole["sign_conflicts"] / whole["both_changed"]
    assert 0.4 < whole["sign_conflict_share"] < 0.6 and 80 < whole["changes_degrees"] < 100
    assert "norm_base" not in json.loads(call("merge", "diff", "a", "b", "--json").stdout)["whole"]


def test_what_is_not_defined_is_null_in_json_and_a_dash_in_text(call: Call, tmp_path: Path) -> None:
    written(tmp_path / "a", {"w": np.ones(3)})
    written(tmp_path / "b", {"w": np.zeros(3), "more": np.ones(2), "count": np.arange(2)})
    whole = json.loads(call("merge", "diff", "a", "b", "--json").stdout)["whole"]
    assert (whole["relative_difference"], whole["cosine"]) == (None, None)
    lines = call("merge", "diff", "a", "b").stdout.splitlines()
    assert lines[1].split() == ["w", "inf", "-", "100.00%"]
    assert lines[-1] in ("only in B: more, count", "only in B: count, more")


def test_models_that_are_no_relatives_and_values_that_are_lost(call: Call, tmp_path: Path) -> None:
    strange = llama(5)
    strange["lm_head.weight"][0, 0] = np.nan
    written(tmp_path / "a", llama(4))
    written(tmp_path / "b", strange)
    result = call("merge", "diff", "a", "b")
    assert "warning: A and B do not look like fine-tunes of one model" in result.stderr
    assert "warning: 1 elements are NaN or infinite" in result.stderr
    assert len(json.loads(call("merge", "diff", "a", "b", "--json").stdout)["hints"]) == 1


def test_what_the_parents_contributed(call: Call, models: dict[str, Path]) -> None:
    lines = call("merge", "diff", "out", "--parents").stdout.splitlines()
    assert lines[:3] == [f"base: {models['base']}", f"[1] {models['a']}", f"[2] {models['b']}"]
    assert lines[-1].split() == ["whole", "0.7000", "0.2000", "100.00%"]
    record = json.loads(call("merge", "diff", "out", "--parents", "--json").stdout)
    assert record["whole"]["coefficients"][str(models["a"])] == pytest.approx(0.7, abs=1e-4)
    assert (len(record["layers"]), len(record["tensors"]), record["skipped"]) == (12, 39, [])
    assert record["whole"]["explained"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["d.png", "d.html"])
def test_a_picture_beside_the_numbers(call: Call, models: dict[str, Path], tmp_path: Path, name: str) -> None:
    for arguments in (("a", "b", "--base", "base"), ("out", "--parents")):
        assert call("merge", "diff", *arguments, "--plot", name, "--json").exit_code == 0
        assert (tmp_path / name).stat().st_size > 10_000
        (tmp_path / name).unlink()


def test_what_is_refused(call: Call, models: dict[str, Path]) -> None:
    assert call("merge", "diff", "a").exit_code == USAGE
    assert call("merge", "diff", "out", "a", "--parents").exit_code == USAGE
    assert call("merge", "diff", "out", "--parents", "--base", "base").exit_code == USAGE
    assert isinstance(call("merge", "diff", "a", "none").exception, CheckpointError)
    assert isinstance(call("merge", "diff", "a", "--parents").exception, MergeError)
    refused = call("merge", "diff", "a", "none", "--plot", "d.gif").exception
    assert isinstance(refused, MergeError) and "d.gif" in str(refused)


def test_inspect_tells_what_is_there(call: Call, models: dict[str, Path]) -> None:
    text = call("merge", "inspect", "out").stdout
    assert "layers       model.layers (12)\n" in text and "vocabulary   12 rows\n" in text
    assert "merged by    task_arithmetic" in text and f"parent       {models['a']}: 39 tensors" in text
    (line,) = [line for line in text.splitlines() if "q_proj" in line]
    assert line.split() == ["layer", "model.layers.*.self_attn.q_proj.weight", "12", "768", "F32", "8x8"]
    record = json.loads(call("merge", "inspect", "out", "--json").stdout)
    assert (record["tensors"], record["tied"], record["origin"]["method"]) == (39, False, "task_arithmetic")
    assert "values" not in record


def test_inspect_reads_values_when_asked(call: Call, tmp_path: Path) -> None:
    tensors = llama(3)
    tensors["model.embed_tokens.weight"][4:6] = 0
    tensors["model.norm.weight"][:] = 0
    tensors["lm_head.weight"][1, 2] = np.inf
    written(tmp_path / "m", tensors)
    lines = call("merge", "inspect", "m", "--values").stdout.splitlines()
    assert lines[-3:] == [
        "NaN or infinite: lm_head.weight (0 NaN, 1 infinite)",
        "all zero: model.norm.weight",
        "rows that are all zero: model.embed_tokens.weight (2)",
    ]
    values = json.loads(call("merge", "inspect", "m", "--values", "--json").stdout)["values"]
    assert values["model.norm.weight"]["dead"] and values["lm_head.weight"]["infinite"] == 1
    query = tensors["model.layers.0.self_attn.q_proj.weight"].astype(float)
    found = values["model.layers.0.self_attn.q_proj.weight"]
    assert found["norm"] == pytest.approx(np.linalg.norm(query))
