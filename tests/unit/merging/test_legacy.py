"""The command line of 2023: its gradients and its checkpoints, held against facts found by running it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.unit.merging.made import llama, loaded, written

from modelyard.core.errors import DocumentError
from modelyard.merging.engine import MergeOptions, run_merge
from modelyard.merging.legacy import HeadGradient, LegacyCommand, gradient_values, legacy_recipe
from modelyard.merging.planning import plan_merge

KNOTS = [0, 0.3, 0.7, 0, 0.1, 1.0]


@pytest.fixture
def models(tmp_path):
    base = llama(0)
    near = {name: llama(seed, around=base, spread=0.01) for seed, name in ((1, "a"), (2, "b"))}
    return {name: str(written(tmp_path / name, t)) for name, t in {"base": base, **near}.items()}


def merge(command, out, layers=3):
    plan = plan_merge(legacy_recipe(command, layers=layers), file="merge legacy", folder=Path())
    run_merge(plan, out, MergeOptions())
    return loaded(out)


def test_the_gradient_of_its_documentation():
    # As the program computed it for five layers: embedding, layers, final norm.
    assert gradient_values(KNOTS, 7) == pytest.approx([0, 0.3, 0.7, 0, 0.1, 1.0, 1.0])


def test_a_gradient_rests_at_each_knot():
    values = gradient_values(KNOTS, 42)
    assert len(values) == 42
    assert values[0] == 0
    assert values[-1] == 1
    assert values[7] == values[8] == pytest.approx(0.3)  # the end of one segment, the start of the next
    assert values[15] == values[16] == pytest.approx(0.7)


def test_more_knots_than_places_are_refused():
    # The program gave every layer the last value instead.
    with pytest.raises(DocumentError, match="fewer knots"):
        gradient_values([0, 1, 0, 1, 0, 1], 4)


@pytest.mark.parametrize("head", HeadGradient)
def test_slerp_with_a_gradient(models, tmp_path, head):
    command = LegacyCommand(
        merge=(models["a"], models["b"]),
        method="slerp",
        layer_gradient="[0, 1]",
        bf16=False,
        head_gradient=head,
    )
    out, a, b = merge(command, tmp_path / "out"), loaded(Path(models["a"])), loaded(Path(models["b"]))
    np.testing.assert_allclose(out["model.embed_tokens.weight"], a["model.embed_tokens.weight"], rtol=1e-6)
    np.testing.assert_allclose(out["model.norm.weight"], b["model.norm.weight"], rtol=1e-6)
    expected = a if head is HeadGradient.BASE else b
    np.testing.assert_allclose(out["lm_head.weight"], expected["lm_head.weight"], rtol=1e-6)


def test_linear_weights_and_gradient(models, tmp_path):
    plain = LegacyCommand(merge=(models["a"], models["b"]), method="linear", weight=(3.0, 1.0), bf16=False)
    out, a, b = merge(plain, tmp_path / "plain"), loaded(Path(models["a"])), loaded(Path(models["b"]))
    for name, value in out.items():
        np.testing.assert_allclose(value, 0.75 * a[name] + 0.25 * b[name], rtol=1e-5, atol=1e-9)
    graded = LegacyCommand(
        merge=(models["a"], models["b"]), method="linear", layer_gradient="[0, 1]", bf16=False
    )
    out = merge(graded, tmp_path / "graded")
    for name, t in (("model.embed_tokens.weight", 0.0), ("model.layers.0.input_layernorm.weight", 0.25)):
        np.testing.assert_allclose(out[name], (1 - t) * a[name] + t * b[name], rtol=1e-5, atol=1e-9)


def test_ties_has_its_own_density_and_stores_embeddings_in_float32(models, tmp_path):
    command = LegacyCommand(merge=(models["a"], models["b"]), base_model=models["base"])
    recipe = legacy_recipe(command, layers=3)
    assert [source.settings["density"] for source in recipe.models] == [0.33, 0.33]
    assert [source.settings["weight"] for source in recipe.models] == [1.0, 1.0]
    plan = plan_merge(recipe, file="merge legacy", folder=Path())
    types = {task.name: task.dtype.word for task in plan.tasks}
    assert types["model.embed_tokens.weight"] == types["lm_head.weight"] == "F32"
    assert types["model.norm.weight"] == "BF16"


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"method": "slerp"}, "exactly one value"),
        ({"method": "linear"}, "a weight for each"),
        ({"method": "linear", "weight": (1.0, 2.0, 3.0)}, "3 values for 2 models"),
        ({"density": (0.1, 0.2, 0.3)}, "3 values for 2 models"),
        ({"method": "slerp", "layer_gradient": "[1]"}, "two or more numbers"),
        ({"method": "slerp", "layer_gradient": "nonsense"}, "two or more numbers"),
        ({"method": "ties", "base_model": "c", "layer_gradient": "[0, 1]"}, "exactly two models, not 3"),
    ],
)
def test_contradictions_are_refused(told, match):
    with pytest.raises(DocumentError, match=match):
        legacy_recipe(LegacyCommand(merge=("a", "b"), **told), layers=4)
