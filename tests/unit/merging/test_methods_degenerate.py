"""Where a formula has nothing to divide by, no direction to follow, or nothing left: what then, and why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.reference import merge_by_decomposition as decomposition
from tests.reference import merge_methods as reference
from tests.unit.merging.bench import NAME, Bench, merged, typed

from modelyard.artifacts.safetensors import DType
from modelyard.core.errors import MergeError
from modelyard.merging.methods.elementwise import agreed, elected, largest

F64 = DType.F64


@pytest.fixture
def run(tmp_path):
    """Merges float64 arrays into a float64 array."""

    def merge(method, models, base=None, **settings):
        bench = Bench(folder=tmp_path, dtype=F64)
        given = None if base is None else typed(base, F64)
        return merged(bench, method, [typed(m, F64) for m in models], given, **settings).values

    return merge


def noise(seed, shape=(6, 8), spread=1.0):
    return spread * np.random.default_rng(seed).standard_normal(shape)


X, Y, B = noise(1), noise(2), noise(3)


def test_nuslerp_halves_between_weights_that_cancel(run):
    np.testing.assert_allclose(run("nuslerp", [X, Y], weight=[1.0, -1.0]),
                               reference.slerp(X, Y, t=0.5), rtol=1e-13)  # fmt: skip


@pytest.mark.parametrize("flatten", [True, False])
def test_nuslerp_takes_the_line_between_opposites_and_counts_zeros_as_perpendicular(run, flatten):
    settings = {"weight": [0.7, 0.3], "nuslerp_flatten": flatten}
    np.testing.assert_allclose(run("nuslerp", [X, -2 * X], **settings), 0.1 * X, rtol=1e-7)
    expected = np.sin(0.7 * np.pi / 2) * X
    np.testing.assert_allclose(run("nuslerp", [X, 0 * X], **settings), expected, rtol=1e-13)
    np.testing.assert_allclose(run("nuslerp", [B + X, B], B, **settings), B + expected, rtol=1e-13)


def test_nuslerp_vectors_are_independent(run):
    """A row of zeros, one of parallels and one of opposites do not disturb the others."""
    a, c = X.copy(), Y.copy()
    a[0], c[1], c[2] = 0.0, a[1], -a[2]
    for row_wise, turn in ((False, lambda v: v), (True, lambda v: v.T)):
        out = run("nuslerp", [turn(a), turn(c)], weight=[1.0, 2.0], nuslerp_flatten=False,
                  nuslerp_row_wise=row_wise)  # fmt: skip
        expected = reference.nuslerp(a, c, weights=(1.0, 2.0), flatten=False)
        np.testing.assert_allclose(turn(out), expected, rtol=1e-6, atol=1e-12)


def test_multislerp_of_directions_that_cancel_is_the_weighted_sum(run):
    np.testing.assert_allclose(run("multislerp", [X, -3 * X], weight=0.5, eps=1e-6), -X, rtol=1e-13)
    zeros = [0 * X, 0 * X, 0 * X]
    np.testing.assert_array_equal(run("multislerp", zeros, weight=1.0, eps=0.0), 0 * X)


def test_multislerp_of_directions_that_nearly_cancel(run):
    """Inner products have lost eight digits there; the length of the sum is taken from the elements."""
    models = [X, -2 * X + 1e-6 * Y]
    expected = reference.multislerp(models, weights=[0.5, 0.5])
    np.testing.assert_allclose(run("multislerp", models, weight=0.5), expected, rtol=1e-7, atol=1e-8)


def test_multislerp_of_one_model_is_that_model(run):
    np.testing.assert_array_equal(run("multislerp", [X], weight=0.0), X)
    np.testing.assert_allclose(run("multislerp", [X], B, weight=3.0), X, rtol=1e-14, atol=1e-15)


def test_multislerp_needs_weights_that_can_be_divided_by(run):
    with pytest.raises(MergeError, match=rf"{NAME}.*add up to 0.*normalize_weights: false"):
        run("multislerp", [X, Y], weight=[1.0, -1.0])


def test_karcher_of_opposites_begins_at_the_first(run):
    np.testing.assert_allclose(run("karcher", [X, -3 * X]), 2 * X, rtol=1e-7)


def test_karcher_counts_zeros_in_the_length_alone(run):
    out = run("karcher", [X, 0 * X, Y])
    np.testing.assert_allclose(out, reference.karcher([X, 0 * X, Y]), rtol=1e-13)
    assert np.linalg.norm(out) == pytest.approx((np.linalg.norm(X) + np.linalg.norm(Y)) / 3)


def test_karcher_without_steps_is_the_mean_direction(run):
    out = run("karcher", [X, Y], max_iter=0)
    np.testing.assert_allclose(out, reference.karcher([X, Y], max_iter=0), rtol=1e-13)


def test_karcher_is_the_mean_on_the_sphere(run):
    """The angles' tangents add up to zero there, which is what defines it."""
    models = [noise(j) for j in range(4)]
    out = run("karcher", models, max_iter=100, tol=1e-12).reshape(-1)
    m = out / np.linalg.norm(out)
    total = 0
    for model in models:
        u = model.reshape(-1) / np.linalg.norm(model)
        angle = np.arccos(u @ m)
        total = total + angle / np.sin(angle) * (u - (u @ m) * m)
    assert np.linalg.norm(total) < 1e-7


def test_model_stock_of_perpendicular_and_of_opposite_tasks_is_the_base(run):
    task, other = np.eye(6, 8), np.roll(np.eye(6, 8), 1, axis=1)
    for models in ([B + task, B + other], [B + task, B - 3 * task]):
        np.testing.assert_allclose(run("model_stock", models, B), B, rtol=1e-12)


@pytest.mark.parametrize("filter_wise", [True, False])
def test_model_stock_measures_small_tasks_too(run, filter_wise):
    """The angle does not depend on the tasks' size; in mergekit it does below a norm of 1e-3."""
    tasks = [noise(5) + 0.5 * noise(j) for j in (6, 7, 8)]
    large = run("model_stock", tasks, 0 * B, filter_wise=filter_wise)
    small = run("model_stock", [2.0**-40 * t for t in tasks], 0 * B, filter_wise=filter_wise)
    np.testing.assert_array_equal(small, 2.0**-40 * large)


def test_nearswap_from_nothing_to_all(run):
    for t in (0.0, -1.0):
        np.testing.assert_array_equal(run("nearswap", [X], B, t=t), B)
    np.testing.assert_allclose(run("nearswap", [X], B, t=100.0), X, rtol=1e-13, atol=1e-15)


def test_fusion_takes_all_where_nothing_stands_out(run):
    column = noise(4, (9, 1))
    np.testing.assert_allclose(run("arcee_fusion", [column + 1.0], column), column + 1.0, rtol=1e-14)
    np.testing.assert_allclose(run("arcee_fusion", [np.array(2.0)], np.array(1.0)), 2.0)


def test_fusion_of_small_tensors_is_the_references(run):
    """The quartiles of few elements hang on which order statistics they are."""
    for seed in range(40):
        shape = (1 + seed % 3, 2 + seed % 7)
        base, model = noise(seed, shape), noise(seed + 100, shape)
        expected = reference.arcee_fusion(base, model)
        np.testing.assert_allclose(run("arcee_fusion", [model], base), expected, rtol=1e-14)


def test_sce_keeps_nothing_where_nothing_varies(run):
    np.testing.assert_array_equal(run("sce", [X, Y], B, select_topk=0.0), B)
    np.testing.assert_array_equal(run("sce", [X], B, select_topk=0.9), B)
    np.testing.assert_allclose(run("sce", [X], B), X, rtol=1e-13, atol=1e-15)


def test_breadcrumbs_from_nothing_to_all(run):
    settings = {"weight": 1.0, "gamma": 0.9}
    np.testing.assert_array_equal(run("breadcrumbs", [X], B, density=0.0, **settings), B)
    np.testing.assert_allclose(run("breadcrumbs", [X], B, density=1.0, **settings), X, rtol=1e-13, atol=1e-15)


def test_breadcrumbs_keep_the_middle(run):
    model = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    out = run("breadcrumbs", [model], 0 * model, weight=1.0, density=0.5, gamma=0.2)
    np.testing.assert_array_equal(np.sort(out[out > 0]), np.arange(31.0, 81.0))


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_della_from_nothing_to_all(run, method):
    np.testing.assert_array_equal(run(method, [X, Y], B, weight=0.5, density=0.0), B)
    out = run(method, [X, Y], B, weight=[0.5, 0.25], density=1.0, normalize=False)
    join = reference.agreed if method == "della" else reference.total_of
    expected = B + join([X - B, Y - B], [0.5, 0.25], normalize=False)
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("density", "epsilon", "remedy"), [(0.9, 0.15, "0.1"), (0.1, 0.1, "0.1")])
def test_della_says_which_probabilities_cannot_be(run, density, epsilon, remedy):
    with pytest.raises(
        MergeError, match=rf"{NAME}: epsilon.*density {density:g} .*set epsilon below {remedy}"
    ):
        run("della", [X], B, weight=1.0, density=density, epsilon=epsilon)


def test_weights_that_cancel_divide_nothing(run):
    for method in ("della_linear", "della", "breadcrumbs", "breadcrumbs_ties"):
        out = run(method, [B + 1, B - 1], B, weight=[1.0, -1.0], density=1.0, normalize=True)
        np.testing.assert_allclose(out, B + 2, rtol=1e-13)


def test_agreeing_weights_that_cancel_up_to_rounding_divide_nothing():
    weights = np.array([0.5, -1.2, 0.7 + 1e-12])
    out = agreed([w * np.array([np.sign(w)]) for w in weights], weights, divide=True)
    assert out[0] == pytest.approx(2.4)


def test_ram_averages_over_those_who_changed(run):
    base = np.zeros(4)
    models = [np.array([1.0, 2.0, 0.0, 1e-6]), np.array([0.0, 4.0, 0.0, 0.0])]
    np.testing.assert_allclose(run("ram", models, base), [1.0, 3.0, 0.0, 0.0])
    # The first model changed one element alone and one with the other; the second nothing alone.
    np.testing.assert_allclose(run("ramplus_tl", models, base, alpha=5.0), [1.1, 3.0, 0.0, 0.0])
    np.testing.assert_allclose(run("ramplus_tl", models, base), [1.02, 3.0, 0.0, 0.0])


def test_tsv_of_equal_tasks_is_the_task_in_half_its_singular_vectors(run):
    """Their singular vectors span one space twice; no direction outside of it may come in."""
    task = noise(9)
    u, s, vt = np.linalg.svd(task, full_matrices=False)
    expected = B + (u[:, :3] * s[:3]) @ vt[:3]
    np.testing.assert_allclose(run("tsv_merge", [B + task, B + task], B), expected, rtol=1e-10, atol=1e-10)


def test_tsv_gives_a_model_without_change_no_direction(run):
    task = noise(9)
    u, s, vt = np.linalg.svd(task, full_matrices=False)
    expected = B + (u[:, :3] * s[:3]) @ vt[:3]
    np.testing.assert_allclose(run("tsv_merge", [B + task, B], B), expected, rtol=1e-10, atol=1e-10)


def test_tsv_of_more_tasks_than_rows_is_finite_and_weights_scale_tasks(run):
    base, tasks = np.zeros((2, 5)), [noise(j, (2, 5)) for j in range(4)]
    assert np.abs(run("tsv_merge", tasks, base)).max() < 10
    weighted = run("tsv_merge", [X, Y], 0 * B, weight=[2.0, -0.5])
    expected = decomposition.tsv_merge(0 * B, [2.0 * X, -0.5 * Y])
    np.testing.assert_allclose(weighted, expected, rtol=1e-10, atol=1e-12)


def test_one_task_alone_is_the_model(run):
    for method in ("tsv_merge", "knots"):
        settings = {"weight": 1.0} if method == "knots" else {}
        np.testing.assert_allclose(run(method, [X], B, **settings), X, rtol=1e-12, atol=1e-13)


def test_iso_c_gives_singular_vectors_of_the_sum_one_length(run):
    low = np.outer(noise(1, 6), noise(2, 8)) + np.outer(noise(3, 6), noise(4, 8))
    change = run("iso_c", [low / 4, 3 * low / 4], 0 * B)
    s = np.linalg.svd(low, compute_uv=False)
    np.testing.assert_allclose(
        np.linalg.svd(change, compute_uv=False), [s.sum() / 6] * 2 + [0] * 4, atol=1e-12
    )
    np.testing.assert_array_equal(run("iso_c", [X, -X], 0 * B), 0 * B)


def test_knots_with_nothing_kept_is_the_base_and_without_election_task_arithmetic(run):
    np.testing.assert_array_equal(run("knots", [X, Y], B, weight=1.0, density=0.0), B)
    # A model's largest coordinate alone is kept where the density asks for less than one.
    one = run("knots", [X], 0 * B, weight=1.0, density=1e-6)
    assert np.linalg.matrix_rank(one) == 1
    # Of equal tasks all signs agree, so that nothing is elected away.
    out = run("knots", [B + X, B + 3 * X], B, weight=[0.5, 1.0], normalize=False)
    np.testing.assert_allclose(out, B + 3.5 * X, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), ()], ids=str)
def test_tensors_without_singular_vectors_are_averaged(run, shape):
    models, base = [noise(1, shape), noise(2, shape)], noise(3, shape)
    expected = base + 0.8 * (sum(models) / 2 - base)
    for method in ("tsv_merge", "iso_c"):
        np.testing.assert_allclose(run(method, models, base, **{"lambda": 0.8}), expected, rtol=1e-13)
    ties = run("ties", models, base, weight=1.0, density=0.5)
    np.testing.assert_array_equal(run("knots", models, base, weight=1.0, density=0.5), ties)


@given(arrays.arrays(np.float64, st.integers(1, 40), elements=st.integers(0, 5).map(float)), st.data())
def test_largest_marks_exactly_so_many_and_the_first_of_equals(values, data):
    count = data.draw(st.integers(0, values.size))
    expected = sorted(range(values.size), key=lambda i: (-values[i], i))[:count]
    assert set(np.flatnonzero(largest(values, count))) == set(expected)


@given(
    arrays.arrays(np.float64, (3, 9), elements=st.integers(-4, 4).map(float)),
    st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=3, max_size=3),
    st.booleans(),
)
def test_elections_are_the_references(changes, weights, divide):
    terms = [w * c for w, c in zip(weights, changes, strict=True)]
    out = agreed(terms, np.array(weights), divide=divide)
    np.testing.assert_allclose(out, reference.agreed(changes, weights, normalize=divide), atol=1e-15)
    for flag, term in zip(elected(terms), terms, strict=True):
        assert not flag[term == 0].any()
