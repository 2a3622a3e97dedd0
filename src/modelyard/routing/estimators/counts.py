"""Estimators that count: each model by its own answers in each cluster, smoothed or shrunk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Floats
from modelyard.routing.estimators import Estimate, Evidence, Known, clipped

_EDGE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Laplace:
    """(errors + 1) / (answers + 2), and so 0.5 in a cluster without answers.

    As published with UniRoute (Jitkrittum et al., 2025, arXiv 2502.08773). With few answers and many
    clusters it makes all models alike, which routes everything to the cheapest: here for comparison.
    """

    clusters: int

    def profile(self, evidence: Evidence) -> Estimate:
        """See `Estimator`."""
        return clipped(*_smoothed(*evidence.counts(self.clusters)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """errors / answers, as in the paper; the model's mean in a cluster without answers."""

    clusters: int

    def profile(self, evidence: Evidence) -> Estimate:
        """See `Estimator`."""
        errors, answers = evidence.counts(self.clusters)
        whole = float(errors.sum() / answers.sum()) if answers.sum() else 0.5
        psi = np.where(answers > 0, errors / np.maximum(answers, 1), whole)
        return clipped(psi, _smoothed(errors, answers)[1])  # one answer of one does not make it certain


@dataclass(frozen=True, slots=True, kw_only=True)
class EmpiricalBayes:
    """A beta posterior in each cluster around the model's own mean, moved by how hard the cluster is.

    The prior of cluster c is logit(mean of the model) + d_c, worth `strength` answers; d_c is by how much
    the known models' mean logit there differs from their mean logit at large.
    """

    clusters: int
    strength: float
    difficulty_k: Floats
    # Of the known models: stands in for the mean of a model, as far as it has few answers.
    pool_mean: float

    @classmethod
    def fit(cls, known: Known, *, strength: float) -> EmpiricalBayes:
        """From the known models."""
        rates = np.array([_rates(row, known) for row in known.errors_mn])
        wholes = np.nanmean(known.errors_mn, axis=1)
        gaps = _logit(rates) - _logit(wholes)[:, None]
        told = ~np.isnan(gaps)  # nobody may have answered in a cluster
        return cls(
            clusters=known.clusters,
            strength=strength,
            difficulty_k=np.where(told, gaps, 0.0).sum(axis=0) / np.maximum(told.sum(axis=0), 1),
            pool_mean=float(wholes.mean()),
        )

    def profile(self, evidence: Evidence) -> Estimate:
        """See `Estimator`."""
        errors, answers = evidence.counts(self.clusters)
        mean = (errors.sum() + self.pool_mean) / (answers.sum() + 1.0)
        prior = 1.0 / (1.0 + np.exp(-(_logit(mean) + self.difficulty_k)))
        total = answers + self.strength
        psi = (errors + self.strength * prior) / total
        return clipped(psi, psi * (1 - psi) / (total + 1.0))


def _smoothed(errors_k: Floats, answers_k: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of the beta posterior of a flat prior."""
    psi = (errors_k + 1.0) / (answers_k + 2.0)
    return psi, psi * (1 - psi) / (answers_k + 3.0)


def _rates(errors_n: Floats, known: Known) -> Floats:
    """A known model's mean error in each cluster; NaN where it has no answer."""
    told = ~np.isnan(errors_n)
    counts = np.bincount(known.clusters_n[told], minlength=known.clusters)
    sums = np.bincount(known.clusters_n[told], weights=errors_n[told], minlength=known.clusters)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _logit(rate: Floats | float) -> Floats:
    bounded = np.clip(rate, _EDGE, 1 - _EDGE)
    logits: Floats = np.log(bounded / (1 - bounded))
    return logits
