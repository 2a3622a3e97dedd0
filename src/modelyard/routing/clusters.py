"""Clusters of prompts: fitted once, so that a model that comes later is known by its errors in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Embeddings, Integers

_MOST_ROUNDS = 50
_CHUNK = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """K centroids of unit vectors."""

    # [K, dimensions]
    centroids_kd: Embeddings

    def __len__(self) -> int:
        return len(self.centroids_kd)

    def assign(self, embeddings_qd: Embeddings) -> Integers:
        """The nearest centroid of each prompt, [Q]; of equally near ones the first."""
        nearest = np.empty(len(embeddings_qd), np.int64)
        lengths = np.einsum("kd,kd->k", self.centroids_kd, self.centroids_kd) / 2
        for begin in range(0, len(embeddings_qd), _CHUNK):
            part = embeddings_qd[begin : begin + _CHUNK]
            nearest[begin : begin + len(part)] = np.argmax(part @ self.centroids_kd.T - lengths, axis=1)
        return nearest


def fit_clusters(embeddings_nd: Embeddings, count: int, seed: int) -> Clusters:
    """K-means with the starts of k-means++ (Lloyd 1982; Arthur and Vassilvitskii, SODA 2007).

    Raises:
        RoutingError: There are fewer different prompts than clusters.
    """
    distinct = len(np.unique(embeddings_nd, axis=0)) if count != 1 else len(embeddings_nd)
    if not 1 <= count <= distinct:
        raise RoutingError(f"{count} clusters of {distinct} different prompts; ask for 1 to {distinct}")
    chance = np.random.default_rng(seed)
    centroids = _starts(embeddings_nd, count, chance)
    before = None
    for _ in range(_MOST_ROUNDS):
        clusters = Clusters(centroids_kd=centroids)
        assigned = clusters.assign(embeddings_nd)
        if before is not None and np.array_equal(assigned, before):
            break
        before = assigned
        centroids = _centres(embeddings_nd, assigned, centroids)
    return Clusters(centroids_kd=centroids)


def _centres(embeddings: Embeddings, assigned: Integers, centroids: Embeddings) -> Embeddings:
    """The mean of each cluster's prompts; a cluster without any stays where it is."""
    order = np.argsort(assigned, kind="stable")
    counts = np.bincount(assigned, minlength=len(centroids))
    full = np.flatnonzero(counts)
    begins = np.concatenate([[0], np.cumsum(counts[full])[:-1]])
    moved = centroids.copy()
    moved[full] = np.add.reduceat(embeddings[order], begins, axis=0) / counts[full, None]
    return moved


def _starts(embeddings: Embeddings, count: int, chance: np.random.Generator) -> Embeddings:
    """Prompts far from one another: each is drawn by its squared distance to those before."""
    chosen = [int(chance.integers(len(embeddings)))]
    distances = np.full(len(embeddings), np.inf)
    for _ in range(1, count):
        last = embeddings[chosen[-1]]
        distances = np.minimum(distances, np.square(embeddings - last).sum(axis=1, dtype=np.float64))
        chosen.append(int(chance.choice(len(embeddings), p=distances / distances.sum())))
    return embeddings[chosen].copy()
