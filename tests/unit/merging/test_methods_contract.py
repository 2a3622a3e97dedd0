"""What every installed merge method keeps to, a user's as well as ours."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import xxhash
from tests.unit.merging.bench import NAME, Bench, merged, merged_and_found, opened, typed

from modelyard.artifacts.safetensors import DType
from modelyard.core.errors import MergeError
from modelyard.merging.blocks import BLOCK
from modelyard.merging.method import Base, MergeMethod, load_method, method_names

#: Settings that leave nothing out of a method; one without a default must stand here.
SETTINGS = {
    "weight": [0.6, 1.1, 0.4],
    "t": 0.3,
    "density": 0.5,
    "gamma": 0.1,
    "epsilon": [0.2, 0.3, 0.1],
    "grams": "",
}
SHAPES = [(), (1,), (13,), (5, 9), (1, 1), (2, 3, 4)]
METHODS = [load_method(name) for name in method_names()]
#: Methods that hold whole tensors: singular vectors and linear systems are of all rows.
WHOLE = {"iso_c", "knots", "tsv_merge"}  # and regmean, where it is given inner products
ON_BASE = [m for m in METHODS if m.base is not Base.IGNORED]


def settings_of(method: MergeMethod, count: int):
    """Settings for every parameter that has one of ours; lists where models have their own."""
    found = {}
    for parameter in method.parameters:
        value = SETTINGS.get(parameter.name, parameter.default)
        if parameter.per_model:
            found[parameter.name] = value[:count] if isinstance(value, list) else value
        else:
            found[parameter.name] = parameter.default if parameter.default is not None else value
    return found


def most(method: MergeMethod) -> int:
    return min(method.most or 3, 3)


def by_name(methods):
    return pytest.mark.parametrize("method", methods, ids=lambda m: m.name)


def run(tmp_path, method, models, base):
    dtype = DType.F32
    bench = Bench(folder=tmp_path, dtype=dtype)
    given = None if method.base is Base.IGNORED else typed(base, dtype)
    settings = settings_of(method, len(models))
    return merged_and_found(bench, method.name, [typed(m, dtype) for m in models], given, **settings)


def noise(shape, seed, around=0.0):
    return around + 0.1 * np.random.default_rng(seed).standard_normal(shape)


@by_name(METHODS)
def test_it_is_documented(method):
    assert method.formula
    assert method.merge.__doc__
    names = [p.name for p in method.parameters]
    assert len(set(names)) == len(names)
    assert all(p.help.endswith(".") or p.help.endswith(")") for p in method.parameters)
    assert all(method.accepted.values())
    assert not set(method.accepted) & set(names)
    for parameter in method.parameters:
        if isinstance(parameter.default, float):
            assert parameter.low <= parameter.default <= parameter.high


def test_names_are_the_registered_ones():
    assert [method.name for method in METHODS] == method_names()


@by_name(ON_BASE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_models_equal_to_the_base_give_it_back(tmp_path, method, shape):
    base = noise(shape, 1)
    for count in {method.least, most(method)}:
        out, _ = run(tmp_path, method, [base] * count, base)
        np.testing.assert_array_equal(out.values, typed(base, DType.F32).values)


@by_name(METHODS)
@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_inputs_that_are_all_equal_give_themselves(tmp_path, method, shape, value):
    constant = np.full(shape, value)
    out, finding = run(tmp_path, method, [constant] * most(method), constant)
    np.testing.assert_allclose(out.values, constant, rtol=1e-6)
    assert finding.overflowed == 0


@by_name(METHODS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zeros_among_others_are_finite(tmp_path, method, shape):
    zero, other = np.zeros(shape), noise(shape, 2)
    for models, base in (
        ([zero, other, other], other), ([zero, other, zero], zero), ([other, -other, zero], zero),
        ([other, zero, other], noise(shape, 3)), ([zero, zero, zero], other),
    ):  # fmt: skip
        out, _ = run(tmp_path, method, models[: most(method)], base)
        assert np.isfinite(out.values).all()
        assert np.abs(out.values).max(initial=0) < 10


@by_name(METHODS)
def test_empty_tensors_stay_empty(tmp_path, method):
    for shape in ((0,), (0, 5), (5, 0)):
        out, _ = run(tmp_path, method, [np.zeros(shape)] * most(method), np.zeros(shape))
        assert out.values.shape == shape


@by_name(METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(13,), (5, 9)], ids=str)
def test_values_that_are_not_finite_are_told_of(tmp_path, method, shape, bad):
    for where in range(most(method) + (method.base is not Base.IGNORED)):
        arrays = [noise(shape, 4 + j) for j in range(most(method) + 1)]
        arrays[where][(1,) * len(shape)] = bad
        _, finding = run(tmp_path, method, arrays[:-1], arrays[-1])
        assert finding.not_finite[where] >= 1
        assert sum(finding.not_finite) == finding.not_finite[where]


@by_name(METHODS)
def test_the_bytes_that_were_read_and_written_are_summed(tmp_path, method):
    shape = (2, BLOCK // 2 + 37)
    arrays = [noise(shape, 9 + j) for j in range(most(method) + 1)]
    out, finding = run(tmp_path, method, arrays[:-1], arrays[-1])
    read = arrays if method.base is not Base.IGNORED else arrays[:-1]
    assert list(finding.inputs) == [xxhash.xxh64(a.astype(np.float32).tobytes()).hexdigest() for a in read]
    assert finding.output == xxhash.xxh64(out.stored.tobytes()).hexdigest()


@by_name(METHODS)
def test_inputs_far_from_one_are_no_trouble(tmp_path, method):
    for scale in (1e-12, 1e12):
        arrays = [scale * noise((5, 9), 20 + j) for j in range(most(method) + 1)]
        out, _ = run(tmp_path, method, arrays[:-1], arrays[-1])
        assert np.isfinite(out.values).all()
        assert np.abs(out.values).max() < 10 * scale


@by_name([m for m in METHODS if m.base is Base.REQUIRED])
def test_a_missing_base_is_named(tmp_path, method):
    arrays = [typed(noise((5, 9), 30 + j), DType.F32) for j in range(most(method))]
    with pytest.raises(MergeError, match=rf"{NAME}.*base_model"):
        merged(Bench(folder=tmp_path), method.name, arrays, **settings_of(method, len(arrays)))


def peak_bytes(tmp_path, method, blocks):
    """The most memory that numpy held during a merge, its inputs not counted."""
    arrays = [typed(noise((blocks, BLOCK), 9 + j), DType.F32) for j in range(most(method) + 1)]
    bench, settings = Bench(folder=tmp_path, dtype=DType.F32), settings_of(method, most(method))
    base = None if method.base is Base.IGNORED else arrays[-1]
    return traced(bench, method, (arrays[:-1], base), settings)


def traced(bench, method, tensors, settings):
    """The most memory that a merge of models and a base, or none, held."""
    with opened(bench, *tensors, settings, method.name) as merged:
        tracemalloc.start()
        try:
            method.merge(merged)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def growth(tmp_path, name, settings, *, columns):
    """How much more memory ten blocks in rows of so many take than two."""
    peaks = []
    for blocks in (2, 10):
        arrays = [typed(noise((blocks * BLOCK // columns, columns), seed), DType.F32) for seed in (1, 2)]
        bench = Bench(folder=tmp_path, dtype=DType.F32)
        peaks.append(traced(bench, load_method(name), (arrays, None), settings))
    return peaks[1] - peaks[0]


@by_name([m for m in METHODS if m.name not in WHOLE])
def test_memory_does_not_grow_with_the_tensor(tmp_path, method):
    more = peak_bytes(tmp_path, method, 10) - peak_bytes(tmp_path, method, 2)
    assert more < 8 * BLOCK * 8 / 2, "half of what eight blocks of one tensor take in float64"


@pytest.mark.parametrize("rows", [False, True])
def test_nor_does_it_where_vectors_are_taken_one_by_one(tmp_path, rows):
    settings = {"weight": 1.0, "nuslerp_flatten": False, "nuslerp_row_wise": rows}
    assert growth(tmp_path, "nuslerp", settings, columns=512) < 4 * BLOCK * 8


def test_nor_does_it_where_vectors_cancel(tmp_path):
    x = noise((8, BLOCK), 3)
    arrays = [typed(x, DType.F32), typed(-x * (1 + 1e-7), DType.F32)]
    bench = Bench(folder=tmp_path, dtype=DType.F32)
    assert traced(bench, load_method("multislerp"), (arrays, None), {"weight": 0.5}) < 10 * BLOCK * 8
