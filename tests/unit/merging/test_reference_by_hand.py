"""The float64 references of merging against values worked out on paper."""

from __future__ import annotations

from math import cos, pi, radians, sin, sqrt

import numpy as np
import pytest
from tests.reference import merge_by_decomposition as decomposition
from tests.reference import merge_methods as reference

Array = np.ndarray
HALF = sqrt(0.5)


def row(*values: float) -> Array:
    """A vector."""
    return np.array(values, dtype=np.float64)


def same(merged: Array, *values: float) -> None:
    """The entries are these, up to float64 rounding."""
    np.testing.assert_allclose(merged.ravel(), values, rtol=1e-12, atol=1e-15)


ZERO = row(0, 0, 0, 0)


def test_linear() -> None:
    models = [row(2, 4), row(6, 8)]
    same(reference.linear(models, weights=[1, 3]), 5, 7)
    same(reference.linear(models, weights=[1, 3], normalize=False), 20, 28)
    with pytest.raises(ValueError, match="sum to zero"):
        reference.linear(models, weights=[1, -1])


def test_passthrough() -> None:
    same(reference.passthrough(row(2, -4), scale=-0.5), -1, 2)


def test_slerp() -> None:
    right_angle = row(1, 0), row(0, 2)
    same(reference.slerp(*right_angle, t=0.5), HALF, 2 * HALF)
    same(reference.slerp(*right_angle, t=1 / 3), sin(pi / 3), 1)
    same(reference.slerp(*right_angle, t=0), 1, 0)
    same(reference.slerp(row(1, 0), row(3, 0), t=0.25), 1.5, 0)
    same(reference.slerp(row(1, 0), row(-1, 0), t=0.25), 0.5, 0)


def test_slerp_takes_a_zero_tensor_to_be_at_a_right_angle() -> None:
    same(reference.slerp(row(1, 2), row(0, 0), t=1 / 3), sin(pi / 3), 2 * sin(pi / 3))
    same(reference.slerp(row(0, 0), row(0, 0), t=1 / 3), 0, 0)


def test_slerp_takes_a_norm_up_to_its_bound_to_be_zero() -> None:
    # Not made a unit vector, so its cosine is its norm: all but a right angle.
    angle = pi / 2 - 1e-9
    expected = (sin(2 * angle / 3) + 1e-9 * sin(angle / 3)) / sin(angle)
    same(reference.slerp(row(1, 0), row(1e-9, 0), t=1 / 3), expected, 0)
    same(reference.slerp(row(1, 0), row(1e-7, 0), t=1 / 3), 2 / 3 + 1e-7 / 3, 0)


def test_slerp_is_a_line_only_beyond_its_bound() -> None:
    for cosine, line in ((0.9994, False), (0.9996, True), (-0.9996, True)):
        other = row(cosine, sqrt(1 - cosine**2))
        straight = 0.7 * row(1, 0) + 0.3 * other
        assert np.allclose(reference.slerp(row(1, 0), other, t=0.3), straight, rtol=0, atol=1e-12) == line


def test_nuslerp() -> None:
    first, second = np.array([[1.0, 0], [0, 3]]), np.array([[0.0, 2], [0, 1]])
    same(reference.nuslerp(row(1, 0), row(0, 2), weights=(2, 1)), sin(pi / 3), 1)
    rows = reference.nuslerp(first, second, weights=(2, 1), flatten=False)
    same(rows, sin(pi / 3), 1, 0, 3 * 2 / 3 + 1 / 3)
    # The first column of `second` is zero; the angle of the second columns has cosine 1/sqrt 5.
    angle = np.arccos(1 / sqrt(5))
    near, far = sin(2 * angle / 3) / sin(angle), sin(angle / 3) / sin(angle)
    columns = reference.nuslerp(first, second, weights=(2, 1), flatten=False, row_wise=True)
    same(columns, sin(pi / 3), 2 * far, 0, 3 * near + far)


def test_nuslerp_of_task_vectors_and_of_cancelling_weights() -> None:
    base = row(5, 5)
    same(reference.nuslerp(row(6, 5), row(5, 7), weights=(1, 1), base=base), 5 + HALF, 5 + 2 * HALF)
    same(reference.nuslerp(row(1, 0), row(0, 2), weights=(1, -1)), HALF, 2 * HALF)


def test_multislerp() -> None:
    pair = [row(1, 0), row(0, 3)]
    same(reference.multislerp(pair, weights=[1, 1], eps=0), 2 * HALF, 2 * HALF)
    # Mean direction (3, 1)/sqrt 10, mean norm .75 + .25 * 3.
    same(reference.multislerp(pair, weights=[3, 1], eps=0), 4.5 / sqrt(10), 1.5 / sqrt(10))
    same(
        reference.multislerp(pair, weights=[3, 1], normalize_weights=False, eps=0),
        18 / sqrt(10),
        6 / sqrt(10),
    )
    same(
        reference.multislerp([row(2, 1), row(1, 4)], weights=[1, 1], base=row(1, 1), eps=0),
        1 + 2 * HALF,
        1 + 2 * HALF,
    )


def test_multislerp_without_a_mean_direction() -> None:
    same(reference.multislerp([row(1, 2), row(-3, -6)], weights=[1, 1]), -1, -2)
    same(reference.multislerp([row(0, 0)] * 3, weights=[1, 1, 1]), 0, 0)
    same(reference.multislerp([row(4, 5)], weights=[0.1], normalize_weights=False), 4, 5)
    with pytest.raises(ValueError, match="sum to zero"):
        reference.multislerp([row(1, 0), row(0, 1)], weights=[1, -1])


def test_karcher() -> None:
    same(reference.karcher([row(1, 0), row(0, 3)]), 2 * HALF, 2 * HALF)
    # On a circle the mean of the directions is the mean of the angles: (0 + 30 + 90)/3 degrees.
    turned = [row(cos(radians(a)), sin(radians(a))) for a in (0, 30, 90)]
    same(reference.karcher(turned), cos(radians(40)), sin(radians(40)))
    start = sum(turned) / np.linalg.norm(sum(turned))
    same(reference.karcher(turned, max_iter=0), *start)
    same(reference.karcher([row(1, 0), row(0, 3), row(0, 0)]), 4 / 3 * HALF, 4 / 3 * HALF)
    same(reference.karcher([row(1, 0), row(-3, 0)]), 2, 0)
    same(reference.karcher([row(0, 0), row(0, 0)]), 0, 0)


def test_nearswap() -> None:
    same(reference.nearswap(row(1, 1, 1, 1), row(1, 1.5, 0.5, 1.1), t=0.25), 1, 1.25, 0.75, 1.1)
    same(reference.nearswap(row(1, 1), row(1, 2), t=0), 1, 1)


def test_model_stock() -> None:
    # Cosine .6, t = 1.2/1.6; the mean is (.8, .4).
    same(reference.model_stock(row(0, 0), [row(1, 0), row(0.6, 0.8)]), 0.6, 0.3)
    same(reference.model_stock(row(0, 0), [row(1, 0), row(-1, 0)]), 0, 0)
    # 1 + c is 5e-7 here: too near to zero to divide by.
    same(reference.model_stock(row(0, 0), [row(1, 0), row(-1, 1e-3)]), 0, 0)
    same(reference.model_stock(row(0, 0), [row(1e-9, 0), row(0.6e-9, 0.8e-9)]) * 1e9, 0.6, 0.3)
    same(reference.model_stock(row(7, 7), [row(7, 7), row(7, 7)]), 7, 7)
    rows = [np.array([[1.0, 0], [1, 0]]), np.array([[0.6, 0.8], [0, 1]])]
    same(reference.model_stock(np.zeros((2, 2)), rows, filter_wise=True), 0.6, 0.3, 0, 0)


def test_task_arithmetic() -> None:
    base, models = row(1, 1), [row(2, 1), row(1, 5)]
    same(reference.task_arithmetic(base, models, weights=[2, 0.5]), 3, 3)
    same(reference.task_arithmetic(base, models, weights=[2, 0.5], lam=0.5), 2, 2)
    same(reference.task_arithmetic(base, models, weights=[3, 1], normalize=True), 1.75, 2)
    same(reference.task_arithmetic(base, models, weights=[1, -1], normalize=True), 2, -3)


def test_ties() -> None:
    models = [row(4, -3, 2, 0), row(-1, -2, 3, 1)]
    given = {"weights": [1, 3], "densities": [0.5, 0.5]}
    same(reference.ties(ZERO, models, **given), 4, -9 / 4, 3, 0)
    same(reference.ties(ZERO, models, **given, normalize=False), 4, -9, 9, 0)
    same(reference.ties(ZERO, models, **given, lam=2), 8, -4.5, 6, 0)
    rescaled = reference.ties(ZERO, models, **given, rescale=True)
    same(rescaled, 4 * 9 / 7, (-3 * 9 / 7 - 6 * 7 / 5) / 4, 3 * 7 / 5, 0)


def test_ties_at_its_edges() -> None:
    def merged(*deltas: Array, weights: list[float], density: float = 1.0) -> Array:
        zero = np.zeros(deltas[0].shape)
        return reference.ties(zero, deltas, weights=weights, densities=[density] * len(deltas))

    same(merged(row(2, -2, 2), weights=[1], density=0.67), 2, -2, 0)
    same(merged(row(2, -3, 2), weights=[1], density=0.01), 0, -3, 0)
    same(merged(row(2, -3, 2), weights=[1], density=0), 0, 0, 0)
    # A sum of zero counts as positive; an entry of zero does not agree.
    same(merged(row(1, 0), row(-1, 2), weights=[1, 1]), 1, 2)
    # Weights that cancel divide nothing.
    same(merged(row(1), row(-1), weights=[1, -1]), 2)


def test_breadcrumbs() -> None:
    base, model = np.zeros(7), row(1, 2, 3, 4, 5, 6, 7)

    def merged(density: float, gamma: float, **more: bool) -> Array:
        return reference.breadcrumbs(base, [model], weights=[1], densities=[density], gammas=[gamma], **more)

    same(merged(0.5, 0.3), 0, 0, 3, 4, 5, 0, 0)
    same(merged(0.9, 0.3), 1, 2, 3, 4, 5, 6, 0)
    same(merged(1.0, 0.9), 1, 2, 3, 4, 5, 6, 7)
    same(merged(0.1, 0.0), 0, 0, 0, 0, 0, 0, 0)
    same(merged(0.5, 0.3, rescale=True), 0, 0, 7, 28 / 3, 35 / 3, 0, 0)
    both = {"weights": [1, 2], "densities": [1, 1], "gammas": [0, 0]}
    same(reference.breadcrumbs(ZERO, [row(4, 1, 0, 1), row(-1, 1, 1, 0)], **both, consensus=True), 4, 3, 2, 1)


def test_dropped_entries_and_what_makes_up_for_them() -> None:
    given = {"weights": [1], "masks": [np.array([True, False, False, True])], "consensus": False}
    model = [row(1, 2, -3, 4)]
    same(reference.dropped(ZERO, model, **given), 2, 0, 0, 8)
    same(reference.dropped(ZERO, model, **given, rescale="none"), 1, 0, 0, 4)
    same(reference.dropped(ZERO, model, **given, rescale="density", keep=[0.25]), 4, 0, 0, 16)
    keep = [row(0.5, 0.1, 0.1, 0.8)]
    same(reference.dropped(ZERO, model, **given, rescale="density", keep=keep), 2, 0, 0, 5)
    nothing = {**given, "masks": [np.zeros(4, dtype=bool)]}
    same(reference.dropped(ZERO, model, **nothing), 0, 0, 0, 0)


def test_dropped_with_consensus_counts_only_what_was_kept() -> None:
    masks = [np.array([True, False]), np.array([True, True])]
    given = {"weights": [1, 3], "masks": masks, "consensus": True, "rescale": "none"}
    models = [row(6, 1), row(-1, -1)]
    same(reference.dropped(row(0, 0), models, **given), 6, -3)
    same(reference.dropped(row(0, 0), models, **given, normalize=True), 6, -1)


def test_keep_probabilities() -> None:
    def probabilities(delta: Array, density: float = 0.5) -> Array:
        return reference.keep_probabilities(delta, density=density, epsilon=0.2)

    same(probabilities(row(1, -3, 2)), 0.3, 0.7, 0.5)
    same(probabilities(row(2, -2, 2)), 0.3, 0.5, 0.7)
    same(probabilities(np.array([[1.0, 2], [-9, 3]])), 0.3, 0.7, 0.7, 0.3)
    same(probabilities(np.arange(8.0).reshape(2, 2, 2)), *[0.3, 0.7] * 4)
    same(probabilities(np.array([[1.0], [2]])), 0.5, 0.5)
    same(probabilities(row(1, -3, 2), density=1), 1, 1, 1)


def test_sce() -> None:
    base, models = row(0, 0), [row(1, 2), row(3, -2)]
    same(reference.sce(base, models), 22 / 9, 2)
    same(reference.sce(base, models, select_topk=0.5), 0, 2)
    same(reference.sce(base, [base, base]), 0, 0)
    # Two of four positions vary at all; half of them is one.
    steady = [row(1, 1, 5, 6), row(1, 1, -5, 2)]
    same(reference.sce(ZERO, steady, select_topk=0.5), 0, 0, 5, 0)


def test_arcee_fusion() -> None:
    # One row: importances in the ratio of the changes; threshold 3 + 1.5 (4 - 2) of them.
    same(reference.arcee_fusion(np.zeros(5), row(1, 2, 3, 4, 100)), 0, 0, 0, 0, 100)
    same(reference.arcee_fusion(np.zeros(5), row(1, 2, 3, 4, 6)), 0, 0, 0, 0, 6)
    same(reference.arcee_fusion(np.zeros(5), row(1, 2, 3, 4, 5.9)), 0, 0, 0, 0, 0)
    # Four entries: the order statistics 0, 1 and 2; threshold 2 + 1.5 (3 - 1).
    same(reference.arcee_fusion(np.zeros(4), row(1, 2, 3, 5)), 0, 0, 0, 5)
    same(reference.arcee_fusion(np.zeros(4), row(1, 2, 3, 4.9)), 0, 0, 0, 0)
    same(reference.arcee_fusion(np.zeros((2, 1)), np.ones((2, 1))), 1, 1)


def test_ram() -> None:
    base, models = row(0, 0, 0, 0), [row(1, 0, 2, 0.5), row(0, 3, 4, 0)]
    same(reference.ram(base, models), 1, 3, 3, 0.5)
    same(reference.ram(base, models, epsilon=0.5), 1, 3, 3, 0)
    # Model 1: two of its own, one shared; model 2: one and one.
    same(reference.ramplus_tl(base, models, alpha=9), 1.05, 3.3, 3, 0.525)
    same(reference.ramplus_tl(base, models), 1.02, 3.06, 3, 0.51)


def test_tsv_merge() -> None:
    zero, v = np.zeros((2, 2)), row(0.6, 0.8)
    first, second = np.diag([2.0, 0]), 3 * np.outer(v, v)
    # The nearest orthonormal pair to (1, 0), (.6, .8) is (3, -1), (1, 3) over sqrt 10.
    same(decomposition.tsv_merge(zero, [first, second]), 2.1, 0.3, 0.3, 2.9)
    same(decomposition.tsv_merge(zero, [first, second], lam=0.5), 1.05, 0.15, 0.15, 1.45)
    same(decomposition.tsv_merge(zero, [np.array([[1.0, 2], [3, 4]])]), 1, 2, 3, 4)
    same(decomposition.tsv_merge(row(1, 1), [row(2, 1), row(1, 3)]), 1.5, 2)


def test_iso_c() -> None:
    zero = np.zeros((2, 2))
    same(decomposition.iso_c(zero, [np.diag([3.0, 0]), np.diag([0, 1.0])]), 2, 0, 0, 2)
    same(decomposition.iso_c(zero, [np.diag([3.0, 0]), np.diag([0, -1.0])], lam=0.5), 1, 0, 0, -1)
    same(decomposition.iso_c(np.ones((2, 2)), [np.ones((2, 2))]), 1, 1, 1, 1)
    same(decomposition.iso_c(row(1, 1), [row(2, 1), row(1, 3)]), 1.5, 2)


def test_knots() -> None:
    full = {"weights": [1, 1], "densities": [1, 1]}
    zero = np.zeros((2, 2))
    same(decomposition.knots(zero, [np.diag([2.0, 0]), np.diag([0, 1.0])], **full), 2, 0, 0, 1)
    # One row: the common column space is a line, so this is TIES itself, whatever the vector's sign.
    same(decomposition.knots(np.zeros((1, 2)), [np.array([[2.0, 0]]), np.array([[-1.0, 3]])], **full), 2, 3)
    same(decomposition.knots(zero, [zero, zero], **full), 0, 0, 0, 0)
    alone = np.array([[1.0, 2], [3, 4]])
    same(decomposition.knots(zero, [alone], weights=[1], densities=[1]), 1, 2, 3, 4)


def test_regmean() -> None:
    one = [np.array([[1.0]]), np.array([[3.0]])]
    same(decomposition.regmean(one, one), 2.5)
    models = [np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6], [7, 8]])]
    seen = [np.diag([1.0, 0]), np.diag([0, 1.0])]
    same(decomposition.regmean(models, seen), 1, 6, 3, 8)
    tied = [np.array([[2.0, 1], [1, 2]]), np.array([[2.0, 0], [0, 2]])]
    same(decomposition.regmean(models, tied, alpha=0.0), 3, 4, 5, 6)


def test_regmean_has_the_least_squared_error() -> None:
    generator = np.random.default_rng(5)
    inputs = [generator.normal(size=(30, 4)) for _ in range(2)]
    models = [generator.normal(size=(3, 4)) for _ in range(2)]
    targets = np.vstack([x @ w.T for x, w in zip(inputs, models, strict=True)])
    best, *_ = np.linalg.lstsq(np.vstack(inputs), targets, rcond=None)
    same(decomposition.regmean(models, [x.T @ x for x in inputs]), *best.T.ravel())
