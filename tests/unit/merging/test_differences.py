"""How models differ and what parents contributed, against numpy on whole tensors."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.merging.made import llama, loaded, ref, source, written

from modelyard.core.errors import CheckpointError, MergeError
from modelyard.merging.blocks import BLOCK
from modelyard.merging.contributions import Contribution, contributions, shares
from modelyard.merging.differences import (
    Pair,
    compare,
    layer_of,
    module_of,
    natural,
    strangers,
    summed,
)
from modelyard.merging.engine import MergeOptions, run_merge
from modelyard.merging.measuring import open_model
from modelyard.merging.planning import plan_merge
from modelyard.merging.recipe import Recipe, Slice


@pytest.fixture
def trio():
    base = llama(0)
    return {"base": base, "a": llama(1, around=base, spread=0.01), "b": llama(2, around=base, spread=0.01)}


@pytest.fixture
def compared(tmp_path):
    """Write models and compare them."""

    def run(a, b, base=None, **options):
        given = {name: t for name, t in (("a", a), ("b", b), ("base", base)) if t is not None}
        return compare(*[open_model(str(written(tmp_path / n, t))) for n, t in given.items()], **options)

    return run


def angle(x, y):
    """In degrees, as numpy has it."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (x, y))
    return np.degrees(np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y)))


def flat(tensors, names):
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in names])


def check(sums, a, b, base=None):
    """Sums of a tensor, or of several put together, against whole arrays."""
    pair = sums.pair
    assert pair.one == pytest.approx(np.linalg.norm(a), rel=1e-12)
    assert pair.other == pytest.approx(np.linalg.norm(b), rel=1e-12)
    assert pair.between == pytest.approx(np.linalg.norm(a - b), rel=1e-12)
    assert pair.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-12)
    assert pair.degrees == pytest.approx(angle(a, b), rel=1e-7)
    assert pair.cosine == pytest.approx(np.cos(np.radians(angle(a, b))), abs=1e-12)
    assert (sums.elements, sums.differing) == (a.size, np.count_nonzero(a != b))
    if base is None:
        return
    da, db, task = a - base, b - base, sums.task
    assert task.moved_a == pytest.approx(np.linalg.norm(da) / np.linalg.norm(base), rel=1e-12)
    assert task.moved_b == pytest.approx(np.linalg.norm(db) / np.linalg.norm(base), rel=1e-12)
    assert task.pair.degrees == pytest.approx(angle(da, db), rel=1e-7)
    both = (da != 0) & (db != 0)
    assert task.both == both.sum()
    assert task.conflicts == (np.sign(da)[both] != np.sign(db)[both]).sum()


def test_every_tensor_layer_module_and_the_whole_as_numpy_has_them(trio, compared):
    a, b, base = trio["a"], trio["b"], trio["base"]
    name = "model.layers.1.mlp.down_proj.weight"
    a[name][:, ::2] = base[name][:, ::2]  # unchanged there: no conflict, and less that differs
    b[name][:3] = a[name][:3]
    found = compared(a, b, base)
    assert [each.name for each in found.tensors] == sorted(a) and found.has_base
    for each in found.tensors:
        check(each.sums, *(t[each.name].astype(np.float64).ravel() for t in (a, b, base)))
    for key, group in ((layer_of, "model.layers.2"), (module_of, "self_attn.q_proj.weight")):
        names = [name for name in sorted(a) if key(name) == group]
        assert len(names) == 3
        check(summed(found.tensors, key)[group], *(flat(t, names) for t in (a, b, base)))
    check(found.whole, *(flat(t, sorted(a)) for t in (a, b, base)))
    assert found.matrices.elements == sum(t.size for t in a.values() if t.ndim == 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_tensors_of_several_blocks_in_other_types(compared, threads):
    rng = np.random.default_rng(5)
    a = rng.standard_normal(2 * BLOCK + 777).astype(np.float16)
    base = rng.standard_normal(len(a))
    b = (base + 0.1 * rng.standard_normal(len(a))).astype(np.float32)
    found = compared({"x": a, "y": a}, {"x": b, "y": b}, {"x": base, "y": base}, threads=threads)
    for each in found.tensors:
        check(each.sums, *(t.astype(np.float64) for t in (a, b, base)))
    assert found.other_dtype == (("x", "F16", "F32"), ("y", "F16", "F32"))


def test_the_number_of_threads_changes_no_bit(trio, compared):
    assert compared(**trio, threads=1) == compared(**trio, threads=4)


def test_what_cannot_be_compared_is_listed(compared):
    one = np.ones((2, 3), np.float32)
    a = {"same": one, "wide": one, "count": np.arange(3), "mine": one, "new": one}
    b = {"same": one, "wide": one.T.copy(), "count": np.arange(3), "yours": one, "new": one}
    found = compared(a, b, {"same": one, "new": one.T.copy()})
    assert [each.name for each in found.tensors] == ["new", "same"]
    assert (found.only_a, found.only_b) == (("mine",), ("yours",))
    assert found.other_shape == (("wide", "2x3", "3x2"),)
    assert (found.not_floating, found.not_in_base) == (("count",), ("new",))
    assert found.whole.elements == 12 and found.whole.task.base == 6.0


def test_values_that_are_not_finite_are_counted_and_left_out(compared):
    a = np.array([1.0, np.nan, 3.0, 4.0])
    b = np.array([1.0, 2.0, np.inf, 5.0])
    (each,) = compared({"x": a}, {"x": b}).tensors
    assert each.sums.not_finite == 2 and each.sums.differing == 1
    assert each.sums.pair == Pair(one=math.sqrt(17), other=math.sqrt(26), between=1.0)


def test_a_model_held_against_itself_and_against_zeros(trio, compared):
    whole = compared(trio["a"], trio["a"]).whole.pair
    assert (whole.relative, whole.cosine, whole.degrees) == (0.0, 1.0, 0.0)
    nothing = {name: np.zeros_like(t) for name, t in trio["a"].items()}
    against = compared(trio["a"], nothing).whole.pair
    assert against.relative == math.inf and math.isnan(against.degrees)
    assert compared(nothing, nothing).whole.pair.relative == 0.0


@given(st.floats(-9.0, 2.25))
def test_a_small_angle_is_exact_where_norms_are_alike(magnitude):
    degrees = 10**magnitude
    pair = Pair(one=1.0, other=1.0, between=2 * math.sin(math.radians(degrees) / 2))
    assert pair.degrees == pytest.approx(degrees, rel=1e-11)


@given(st.floats(0.0, 180.0), st.floats(1e-3, 1e3))
def test_an_angle_between_vectors_of_different_norm(degrees, size):
    between = abs(size * np.exp(1j * np.radians(degrees)) - 1)
    pair = Pair(one=size, other=1.0, between=float(between))
    assert pair.degrees == pytest.approx(degrees, abs=5e-6 * max(size, 1 / size) ** 0.5)


def test_a_small_angle_between_models_is_not_lost_in_rounding(compared):
    rng = np.random.default_rng(3)
    a = rng.standard_normal(1000)
    side = rng.standard_normal(1000)
    side -= a * (a @ side) / (a @ a)
    b = a + 1e-9 * np.linalg.norm(a) / np.linalg.norm(side) * side
    assert compared({"x": a}, {"x": b}).whole.pair.degrees == pytest.approx(np.degrees(1e-9), rel=1e-6)


def test_models_of_other_descent_are_told(trio, compared):
    assert strangers(compared(**trio)) == []
    other = llama(77)
    other |= {name: np.ones_like(t) for name, t in other.items() if t.ndim == 1}
    (told,) = strangers(compared(other, trio["b"]))
    assert told.startswith("A and B do not look like fine-tunes of one model") and "(above 0.9)" in told
    wrong = strangers(compared(trio["a"], trio["b"], other))
    assert [text.partition(" do not")[0] for text in wrong] == ["A and the base", "B and the base"]


def test_layers_modules_and_their_order():
    name = "model.layers.12.mlp.experts.63.w1.weight"
    assert (layer_of(name), module_of(name)) == ("model.layers.12", "mlp.experts.*.w1.weight")
    assert layer_of("model.norm.weight") is None and module_of("model.norm.weight") == "model.norm.weight"
    layers = [f"{stack}.layers.{i}" for stack in ("decoder", "encoder") for i in range(12)]
    assert sorted(sorted(layers), key=natural) == layers


def test_a_file_that_is_gone(trio, tmp_path):
    model = open_model(str(written(tmp_path / "a", trio["a"])))
    (tmp_path / "a" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be opened"):
        compare(model, model)


# Parents.


@pytest.fixture
def merged(tmp_path, trio):
    """Merge a and b (and base) of the fixture, by a method with these weights, and measure the parents."""
    for name, tensors in trio.items():
        written(tmp_path / name, tensors)

    def run(method="task_arithmetic", weights=(0.7, 0.3), base="base", slices=None, **more):
        each = [
            source(tmp_path / n, weight=w) if slices is None else source(tmp_path / n, slices, weight=w)
            for n, w in zip("ab", weights, strict=True)
        ]
        parts = {"slices": (Slice(sources=tuple(each)),)} if slices else {"models": tuple(each)}
        recipe = Recipe(method=method, base_model=ref(tmp_path / base) if base else None, **parts, **more)
        plan = plan_merge(recipe, file="recipe.yml", folder=Path())
        return run_merge(plan, tmp_path / "out", MergeOptions(overwrite=True)).out

    return run


def test_the_weights_of_task_arithmetic_are_found_again(merged, tmp_path):
    found = contributions(merged())
    assert found.parents == (str(tmp_path / "a"), str(tmp_path / "b"))
    assert found.base == str(tmp_path / "base") and found.skipped == ()
    for tensors in (found.tensors, *([each] for each in found.tensors)):
        told = shares(tensors)
        assert told.coefficients == pytest.approx((0.7, 0.3), abs=1e-5)
        assert told.explained == pytest.approx(1.0, abs=1e-9)


def test_the_weights_of_a_linear_merge_are_found_without_a_base(merged):
    found = contributions(merged("linear", weights=(3.0, 1.0), base=None))
    assert found.base is None
    assert shares(found.tensors).coefficients == pytest.approx((0.75, 0.25), abs=1e-4)


def test_least_squares_as_numpy_does_it(merged, trio, tmp_path):
    out = merged("ties", weights=(1.0, 0.6))
    found = {each.name: each for each in contributions(out).tensors}
    for name, each in found.items():
        base = trio["base"][name].astype(np.float64).ravel()
        tasks = np.stack([trio[n][name].ravel() - base for n in "ab"], axis=1)
        target = loaded(out)[name].ravel() - base
        expected, rest, *_ = np.linalg.lstsq(tasks, target, rcond=None)
        told = shares([each])
        assert told.coefficients == pytest.approx(expected, abs=1e-9)
        assert told.explained == pytest.approx(1 - rest[0] / (target @ target), abs=1e-9)
        assert told.explained < 0.999


def test_slices_that_keep_layers_in_place_are_told(merged):
    assert shares(contributions(merged(slices=(0, 3))).tensors).coefficients == pytest.approx(
        (0.7, 0.3), abs=1e-5
    )


def test_layers_that_were_moved_are_refused(merged):
    with pytest.raises(MergeError, match="moved layers"):
        contributions(merged(slices=(1, 3)))


def test_a_parent_that_is_not_kept_or_gone(merged, tmp_path):
    out, parent = merged(), tmp_path / "b"
    shutil.rmtree(parent)
    with pytest.raises(CheckpointError, match="b: is neither a folder nor a file"):
        contributions(out)
    record = json.loads((out / "merge.json").read_text())
    record["parents"][str(parent)]["path"] = None
    (out / "merge.json").write_text(json.dumps(record))
    with pytest.raises(MergeError, match="b was made on the way"):
        contributions(out)


def test_a_folder_without_a_record(trio, tmp_path):
    with pytest.raises(MergeError, match=r"merge\.json: cannot be read"):
        contributions(written(tmp_path / "a", trio["a"]))


def gram(*vectors):
    stacked = np.stack(vectors)
    return Contribution(name="x", gram=stacked @ stacked.T)


def test_equal_parents_share_equally_and_an_idle_one_has_none():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50))
    told = shares([gram(x, x, np.zeros(50), y, 3 * x + 2 * y)])
    assert told.coefficients[:2] == pytest.approx((1.5, 1.5))
    assert math.isnan(told.coefficients[2]) and told.coefficients[3] == pytest.approx(2.0)
    assert told.explained == pytest.approx(1.0)


def test_a_result_that_is_the_base_explains_nothing():
    x = np.arange(1.0, 5.0)
    told = shares([gram(x, np.zeros(4))])
    assert told.coefficients == (0.0,) and math.isnan(told.explained)


def test_parents_of_very_different_size_are_both_seen():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 200))
    told = shares([gram(1e-6 * x, 1e6 * y, 0.5e-6 * x + 0.25e6 * y)])
    assert told.coefficients[1] == pytest.approx(0.25)
