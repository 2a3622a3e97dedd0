"""Clusters that are learned from who errs where, instead of from the prompts alone.

After UniRoute's LearnedMap (Jitkrittum et al., 2025, arXiv 2502.08773, section 5.2): a softmax over K regions
is fitted so that known models' mean errors in the regions predict their errors on each prompt. Here a region
has a centroid, so that the map is one of `Clusters` in the end: prompts are softly in the regions near them
while the centroids are fitted (squared error, from the centroids of k-means), and go to the nearest one in
service. The means are taken anew between rounds, as in any alternating fit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax

from modelyard.routing.answers import Embeddings, Floats
from modelyard.routing.clusters import Clusters, fit_clusters

Flags = npt.NDArray[np.bool_]
#: How sharply prompts belong to regions, how much a centroid's way from its start costs, and the rounds.
_SHARPNESS, _RIDGE, _ROUNDS, _STEPS = 20.0, 1e-3, 10, 15
#: Answers that the model's own mean is worth in a region.
_STRENGTH = 5.0


def learn_clusters(embeddings_nd: Embeddings, errors_mn: Floats, count: int, seed: int) -> Clusters:
    """Clusters in which known models differ.

    Args:
        embeddings_nd: The prompts, [N, dimensions].
        errors_mn: Of known models, [M, N]; NaN where one was not asked.
        count: How many clusters.
        seed: Of the starts.

    Raises:
        RoutingError: There are fewer different prompts than clusters.
    """
    start = fit_clusters(embeddings_nd, count, seed)
    told = ~np.isnan(errors_mn)
    errors = np.where(told, errors_mn, 0.0)
    points = embeddings_nd.astype(np.float64)
    first = start.centroids_kd.astype(np.float64)
    centroids = first
    for _ in range(_ROUNDS if count > 1 else 0):
        psi_mk = region_means(_membership(points, centroids), errors, told)
        found = minimize(
            _loss, centroids.ravel(), args=(first, points, errors, told, psi_mk), jac=True, method="L-BFGS-B",
            options={"maxiter": _STEPS, "gtol": 1e-9, "ftol": 1e-12},
        )  # fmt: skip
        centroids = found.x.reshape(first.shape)
    return Clusters(centroids_kd=centroids.astype(np.float32))


def region_means(member_nk: Floats, errors_mn: Floats, told_mn: Flags) -> Floats:
    """Each model's mean error in each region, drawn to its own mean where it has few answers; [M, K]."""
    weight_mk = told_mn.astype(np.float64) @ member_nk
    own_m = errors_mn.sum(axis=1) / np.maximum(told_mn.sum(axis=1), 1)
    means: Floats = (errors_mn @ member_nk + _STRENGTH * own_m[:, None]) / (weight_mk + _STRENGTH)
    return means


def _membership(points_nd: Floats, centroids_kd: Floats) -> Floats:
    near_nk = points_nd @ centroids_kd.T - np.einsum("kd,kd->k", centroids_kd, centroids_kd) / 2
    member: Floats = softmax(_SHARPNESS * near_nk, axis=1)
    return member


def _loss(
    flat: Floats, first_kd: Floats, points_nd: Floats, errors_mn: Floats, told_mn: Flags, psi_mk: Floats
) -> tuple[float, Floats]:
    """The mean squared error of what regions predict, and its gradient by the centroids."""
    centroids_kd = flat.reshape(first_kd.shape)
    member_nk = _membership(points_nd, centroids_kd)
    gap_mn = np.where(told_mn, psi_mk @ member_nk.T - errors_mn, 0.0)
    answers = told_mn.sum()
    by_member_nk = 2.0 * gap_mn.T @ psi_mk / answers
    # through the softmax, then through the distance
    inner_nk = member_nk * (by_member_nk - (member_nk * by_member_nk).sum(axis=1, keepdims=True))
    pull_kd = _SHARPNESS * (inner_nk.T @ points_nd - inner_nk.sum(axis=0)[:, None] * centroids_kd)
    away_kd = centroids_kd - first_kd
    value = float(np.square(gap_mn).sum() / answers + _RIDGE * np.square(away_kd).sum())
    return value, (pull_kd + 2.0 * _RIDGE * away_kd).ravel()
