"""Random drops: at the rate that was asked for, apart from model to model, and a matter of the seed alone.

A count of n draws lies within 4 standard deviations with probability 1 - 6e-5; seeds are fixed.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from tests.unit.merging.bench import NAME, Bench, merged, opened, typed

from modelyard.artifacts.safetensors import DType
from modelyard.merging.blocks import BLOCK

F32 = DType.F32
SIZE = BLOCK + 4321
RANDOM = ["dare_linear", "dare_ties", "della_linear", "della"]


def splitmix(key: int, index: int) -> int:
    """The index-th number of SplitMix64 started at `key` (Steele, Lea, Flood 2014), in whole numbers."""
    word = 2**64 - 1
    z = (key + (index + 1) * 0x9E3779B97F4A7C15) & word
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & word
    z = (z ^ z >> 27) * 0x94D049BB133111EB & word
    return z ^ z >> 31


def kept(bench, method, shape, count, **settings):
    """Which elements of each model are kept: model j's differences are all 2^j, the base is 0."""
    models = [typed(np.full(shape, 2.0**j), F32) for j in range(count)]
    out = merged(bench, method, models, typed(np.zeros(shape), F32), weight=1.0, rescale=False,
                 normalize=False, **settings)  # fmt: skip
    return [(out.values.astype(int) >> j & 1).astype(bool) for j in range(count)]


def near(found, expected, deviation):
    return abs(found - expected) <= 4 * deviation


def uniforms(bench, size, j=0, *given):
    ones = typed(np.ones(size), F32)
    with opened(bench, [ones] * (j + 1), ones, {"weight": 1.0}, "dare_linear") as tensors:
        return tensors.uniforms(j, *given)


def test_uniforms_are_splitmix_of_a_key_and_the_place(tmp_path):
    found = uniforms(Bench(folder=tmp_path, seed=3), SIZE)
    key = int.from_bytes(hashlib.sha256(f"3\0{NAME}\0000".encode()).digest()[:8], "little")
    for place in (0, 1, 2, BLOCK - 1, BLOCK, SIZE - 1):
        assert found[place] == (splitmix(key, place) >> 11) / 2**53
    assert found.min() >= 0
    assert found.max() < 1


def test_a_part_of_the_uniforms_is_that_part(tmp_path):
    bench = Bench(folder=tmp_path)
    np.testing.assert_array_equal(uniforms(bench, SIZE, 1, 77, 1000), uniforms(bench, SIZE, 1)[77:1077])


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.875, 1 / 3])
def test_the_kernels_draw_by_the_same_numbers(tmp_path, density):
    bench = Bench(folder=tmp_path, seed=8)
    masks = kept(bench, "dare_linear", (SIZE,), 2, density=density)
    for j, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, uniforms(bench, SIZE, j) < density)


@pytest.mark.parametrize("method", RANDOM)
@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_the_rate_of_what_is_kept_is_the_density(tmp_path, method, density):
    for mask in kept(Bench(folder=tmp_path, seed=1), method, (SIZE,), 3, density=density):
        assert near(mask.sum(), SIZE * density, math.sqrt(SIZE * density * (1 - density)))


@pytest.mark.parametrize("method", RANDOM)
def test_models_and_neighbours_are_drawn_apart(tmp_path, method):
    even = {"epsilon": 0.0} if method.startswith("della") else {}
    masks = np.array(kept(Bench(folder=tmp_path, seed=2), method, (SIZE,), 3, density=0.5, **even))
    signs = 2.0 * masks - 1.0
    for a in range(3):
        for b in range(a):
            assert near((signs[a] * signs[b]).sum(), 0.0, math.sqrt(SIZE))
        for lag in (1, 2, 64, 1024):
            assert near((signs[a, lag:] * signs[a, :-lag]).sum(), 0.0, math.sqrt(SIZE - lag))


def test_della_keeps_by_rank(tmp_path):
    rows, columns, density, epsilon = 5000, 9, 0.5, 0.3
    ranks = np.random.default_rng(5).permuted(np.tile(np.arange(columns), (rows, 1)), axis=1)
    model = typed(ranks + 1.0, F32)
    out = merged(Bench(folder=tmp_path, seed=4), "della_linear", [model], typed(0 * ranks, F32), weight=1.0,
                 density=density, epsilon=epsilon, rescale=False)  # fmt: skip
    for rank in range(columns):
        chance = density - epsilon + 2 * epsilon * rank / (columns - 1)
        count = np.count_nonzero(out.values[ranks == rank])
        assert near(count, rows * chance, math.sqrt(rows * chance * (1 - chance)))


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
def test_what_is_dropped_is_made_up_for_on_average(tmp_path, method):
    model, base, bench = typed(np.ones(SIZE), F32), typed(np.zeros(SIZE), F32), Bench(folder=tmp_path)
    settings = {"weight": 1.0, "density": 0.25}
    density = merged(bench, method, [model], base, rescale_by="density", **settings)
    assert near(density.values.mean(), 1.0, math.sqrt((1 / 0.1 - 1) / SIZE))
    size = merged(bench, method, [model], base, **settings)
    assert size.values.mean() == pytest.approx(1.0, rel=1e-6)


def noisy(seed, shape=(41, 67)):
    return typed(np.random.default_rng(seed).standard_normal(shape), DType.BF16)


@pytest.mark.parametrize("method", RANDOM)
def test_the_seed_and_the_name_decide(tmp_path, method):
    def made(seed, name):
        bench = Bench(folder=tmp_path, seed=seed, name=name)
        models = [noisy(1), noisy(2)]
        return merged(bench, method, models, noisy(3), weight=1.0, density=0.5).stored.tobytes()

    assert made(1, "a") == made(1, "a")
    assert len({made(1, "a"), made(2, "a"), made(1, "b")}) == 3


@pytest.mark.parametrize("method", RANDOM)
def test_the_order_of_tensors_does_not_matter(tmp_path, method):
    shapes = {"a": (5, 3), "b": (2, BLOCK // 2 + 9), "c": (40,)}

    def made(names):
        first = Bench(folder=tmp_path)
        results = {}
        for name in names:
            bench = Bench(folder=tmp_path, seed=6, name=name, space=first.space)
            models = [noisy(j, shapes[name]) for j in (1, 2)]
            out = merged(bench, method, models, noisy(3, shapes[name]), weight=1.0, density=0.5)
            results[name] = out.stored.tobytes()
        return results

    assert made("abc") == made("cba") == made("bac")
