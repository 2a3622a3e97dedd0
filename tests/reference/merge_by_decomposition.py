"""The merge methods that decompose matrices, once more in plain numpy and float64, from their papers.

As `merge_methods.py`: slow, obvious, and shared with nothing. A tensor that is not a matrix has no
singular vectors; there each method is the plain mean (or, for KnOTS, TIES) of the task vectors.
"""

from __future__ import annotations

import numpy as np
from tests.reference.merge_methods import Array, Arrays, agreed, magnitude_mask


def tsv_merge(base: Array, models: Arrays, *, lam: float = 1.0) -> Array:
    """TSV-Merge (Gargiulo et al., 2412.00081, the TSV-Merge algorithm).

    Each d_i = U_i S_i V_i^T keeps its k = max(1, min(m, n)/T) largest triplets (T models). The kept
    U_i stand side by side, and so do the V_i; each of the two is replaced by the nearest matrix with
    orthonormal columns (Procrustes: P Q^T of its SVD P D Q^T). out = b + lambda U' S V'^T.
    """
    deltas = [x - base for x in models]
    if base.ndim != 2:
        return base + lam * sum(deltas) / len(deltas)
    kept = max(1, min(base.shape) // len(models))
    parts = [np.linalg.svd(d, full_matrices=False) for d in deltas]
    left = np.hstack([u[:, :kept] for u, _, _ in parts])
    middle = np.concatenate([s[:kept] for _, s, _ in parts])
    right = np.hstack([vt[:kept].T for _, _, vt in parts])
    return base + lam * (orthonormal(left) * middle) @ orthonormal(right).T


def iso_c(base: Array, models: Arrays, *, lam: float = 1.0) -> Array:
    """Iso-C (Marczak et al., 2502.04959): U S V^T of sum d_i, S replaced by its mean.

    out = b + lambda mean(S) U V^T, over all min(m, n) singular values.
    """
    deltas = [x - base for x in models]
    if base.ndim != 2:
        return base + lam * sum(deltas) / len(deltas)
    u, s, vt = np.linalg.svd(sum(deltas), full_matrices=False)
    return base + lam * s.mean() * (u @ vt)


def knots(
    base: Array,
    models: Arrays,
    *,
    weights: list[float],
    densities: list[float],
    normalize: bool = True,
    lam: float = 1.0,
) -> Array:
    """KnOTS-TIES (Stoica et al., 2410.19735): TIES in the models' common column space.

    [d_1 ... d_T] = U S [V_1 ... V_T]^T, singular values at rounding level left out; the matrices
    S V_i^T are merged as TIES merges task vectors; out = b + lambda U (merged).
    """
    deltas = [x - base for x in models]
    if base.ndim != 2:
        return base + lam * _ties(deltas, weights, densities, normalize=normalize)
    joined = np.hstack(deltas)
    u, s, vt = np.linalg.svd(joined, full_matrices=False)
    rank = int((s > s[0] * max(joined.shape) * np.finfo(float).eps).sum())
    aligned = np.split(s[:rank, None] * vt[:rank], len(models), axis=1)
    if rank == 0:
        return base.copy()
    return base + lam * u[:, :rank] @ _ties(aligned, weights, densities, normalize=normalize)


def regmean(models: Arrays, grams: Arrays, *, alpha: float = 1.0) -> Array:
    """RegMean (Jin et al., 2212.09849, its closed form): the linear map of least squared error.

    Weights are stored [out, in] and G_i = X_i^T X_i is [in, in]: W = (sum W_i G_i)(sum G_i)^-1. Entries
    of G_i off its diagonal are first multiplied by `alpha`. A singular sum is inverted in its range.
    """
    shrunk = [alpha * g + (1 - alpha) * np.diag(np.diag(g)) for g in grams]
    right = sum(w @ g for w, g in zip(models, shrunk, strict=True))
    return right @ np.linalg.pinv(sum(shrunk), hermitian=True)


def orthonormal(matrix: Array) -> Array:
    """P Q^T of the matrix P D Q^T: the nearest one with orthonormal columns (rows, if it is wide)."""
    p, _, qt = np.linalg.svd(matrix, full_matrices=False)
    return p @ qt


def _ties(deltas: Arrays, weights: list[float], densities: list[float], *, normalize: bool) -> Array:
    masks = [magnitude_mask(d, density=p) for d, p in zip(deltas, densities, strict=True)]
    return agreed([d * m for d, m in zip(deltas, masks, strict=True)], weights, normalize=normalize)
