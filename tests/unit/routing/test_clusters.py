"""Clusters: nearest by definition, fitted as well as a reference does it, and the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import RoutingError
from modelyard.routing.clusters import fit_clusters


def points(count=300, seed=0, groups=5, spread=0.1):
    chance = np.random.default_rng(seed)
    centres = chance.standard_normal((groups, 8))
    return (
        centres[chance.integers(groups, size=count)] + spread * chance.standard_normal((count, 8))
    ).astype(np.float32)


def inertia(clusters, values):
    return float(np.square(values - clusters.centroids_kd[clusters.assign(values)]).sum())


@given(st.integers(1, 9), st.integers(0, 5))
def test_each_prompt_is_with_its_nearest_centroid(count, seed):
    values = points(40, seed)
    clusters = fit_clusters(values, count, seed)
    distances = np.square(values[:, None] - clusters.centroids_kd[None]).sum(axis=2)
    nearest = distances[np.arange(len(values)), clusters.assign(values)]
    np.testing.assert_allclose(nearest, distances.min(axis=1), rtol=1e-4, atol=1e-5)


def test_groups_are_found():
    values = points(spread=0.01)
    found = fit_clusters(values, 5, seed=1)
    assert inertia(found, values) < 0.02 * inertia(fit_clusters(values, 1, seed=1), values)


def test_it_is_as_good_as_a_reference():
    kmeans = pytest.importorskip("sklearn.cluster").KMeans
    values = points(500, groups=30, spread=0.8)
    ours = np.mean([inertia(fit_clusters(values, 12, seed), values) for seed in range(8)])
    theirs = np.mean([kmeans(12, n_init=1, random_state=seed).fit(values).inertia_ for seed in range(8)])
    assert ours < 1.02 * theirs


def test_a_seed_gives_the_same():
    values = points()
    np.testing.assert_array_equal(
        fit_clusters(values, 7, 3).centroids_kd, fit_clusters(values, 7, 3).centroids_kd
    )


@pytest.mark.parametrize("count", [0, 4])
def test_too_many_or_none_are_refused(count):
    with pytest.raises(RoutingError, match="3 different prompts"):
        fit_clusters(np.eye(3, dtype=np.float32).repeat(2, axis=0), count, 0)
