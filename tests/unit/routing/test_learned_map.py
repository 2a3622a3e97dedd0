"""Learned clusters: the gradient, what they find, and that they are clusters like others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from modelyard.core.errors import RoutingError
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.embedders import unit_rows
from modelyard.routing.learned_map import _loss, learn_clusters, region_means


def drawn(seed, prompts=800, models=8, dimensions=12):
    """Prompts that vary most along what does not matter, and models that differ by the sign of one number."""
    chance = np.random.default_rng(seed)
    points = chance.standard_normal((prompts, dimensions))
    points[:, 0] *= 0.7  # what matters is not the widest direction
    points[:, 1:3] *= 3.0
    kind = points[:, 0] > 0
    rates = chance.uniform(0.05, 0.95, (models, 2))
    errors = (chance.random((models, prompts)) < rates[:, kind.astype(int)]).astype(float)
    return unit_rows(points.astype(np.float32)), errors, kind


def explained(clusters, points, errors, held):
    """The share of the variance between models and prompts that means by cluster predict on other prompts."""
    near, fit = clusters.assign(points), ~held
    places = [fit & (near == k) if (fit & (near == k)).any() else fit for k in range(len(clusters))]
    psi = np.array([[row[place].mean() for place in places] for row in errors])
    gap = errors[:, held] - psi[:, near[held]]
    flat = errors[:, held] - errors[:, fit].mean(axis=1, keepdims=True)
    return 1 - np.square(gap).sum() / np.square(flat).sum()


def test_regions_follow_what_models_differ_by():
    """Two regions, twelve draws: the learned ones predict other prompts better in at least eleven."""
    better = 0
    for seed in range(12):
        points, errors, _ = drawn(seed)
        held = np.random.default_rng(seed + 100).random(len(points)) < 0.4
        plain = fit_clusters(points[~held], 2, seed)
        learned = learn_clusters(points[~held], errors[:, ~held], 2, seed)
        better += explained(learned, points, errors, held) > explained(plain, points, errors, held) + 0.02
    assert better >= 11


def test_the_gradient_is_that_of_the_loss():
    points, errors, _ = drawn(0, prompts=60, models=4, dimensions=5)
    told = np.random.default_rng(1).random(errors.shape) < 0.7
    first = np.random.default_rng(2).standard_normal((3, 5)) / 3
    at = first + 0.1 * np.random.default_rng(3).standard_normal(first.shape)
    member = np.full((60, 3), 1 / 3)
    given = (
        first,
        points.astype(float),
        np.where(told, errors, 0.0),
        told,
        region_means(member, errors, told),
    )
    gap = check_grad(lambda x: _loss(x, *given)[0], lambda x: _loss(x, *given)[1], at.ravel())
    assert gap < 1e-5


def test_answers_that_are_missing_are_left_out():
    points, errors, _ = drawn(3)
    holes = np.where(np.random.default_rng(4).random(errors.shape) < 0.3, np.nan, errors)
    learned = learn_clusters(points, holes, 3, 0)
    assert np.isfinite(learned.centroids_kd).all() and len(learned) == 3
    nothing = np.full_like(errors, np.nan)
    nothing[:, 0] = 1.0
    assert np.isfinite(learn_clusters(points, nothing, 3, 0).centroids_kd).all()


def test_the_same_seed_gives_the_same_clusters_and_one_is_the_mean():
    points, errors, _ = drawn(5)
    one, same = (learn_clusters(points, errors, 4, 1).centroids_kd for _ in range(2))
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(
        learn_clusters(points, errors, 1, 1).centroids_kd, fit_clusters(points, 1, 1).centroids_kd
    )
    with pytest.raises(RoutingError, match="801 clusters of"):
        learn_clusters(points, errors, 801, 0)
