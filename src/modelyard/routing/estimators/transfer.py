"""Response transfer: a new model answers as a mixture of known ones does, learned from the prompts it shares.

Its excess over a prompt's difficulty is regressed on the known models' excesses, by ridge regression
whose prior says that no known model is likelier than another. The mixture's excess in each cluster is
then known from all prompts that the known models have answered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Floats
from modelyard.routing.estimators import Estimate, Evidence, Known, Leftover, clipped

_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """See the module."""

    # Known models' excesses with a constant first, [N, 1 + M], their means by cluster, and difficulties.
    excess_nf: Floats
    excess_kf: Floats
    difficulty_n: Floats
    difficulty_k: Floats
    prior_f: Floats
    noise: float
    # The spread of what no mixture explains, see `Leftover`; 0 is none.
    leftover: float = 0.0

    @classmethod
    def fit(cls, known: Known, *, spread: float, leftover: float = 0.0) -> Transfer:
        """From the known models; `spread` is the prior deviation of the mixture's weights together."""
        told = ~np.isnan(known.errors_mn)
        difficulty = known.difficulty()
        excess = np.where(told, known.errors_mn - difficulty, 0.0)
        ability = excess.mean(axis=1, keepdims=True)
        features = np.vstack([np.ones((1, excess.shape[1])), np.where(told, excess - ability, 0.0)])
        counts = np.bincount(known.clusters_n, minlength=known.clusters)
        sums = np.array(
            [np.bincount(known.clusters_n, weights=row, minlength=known.clusters) for row in features]
        )
        fallback = features.mean(axis=1)[:, None]
        means = np.where(counts > 0, sums / np.maximum(counts, 1), fallback)
        hard = np.bincount(known.clusters_n, weights=difficulty, minlength=known.clusters)
        models = len(excess)
        prior = np.concatenate([[np.square(ability).mean()], np.full(models, spread**2 / models)])
        return cls(
            excess_nf=features.T,
            excess_kf=means.T,
            difficulty_n=difficulty,
            difficulty_k=np.where(counts > 0, hard / np.maximum(counts, 1), difficulty.mean()),
            prior_f=np.maximum(prior, _LEAST_VARIANCE),
            leftover=leftover,
            noise=max(float(np.square(excess).sum() / max(told.sum(), 1)), _LEAST_VARIANCE),
        )

    def profile(self, evidence: Evidence) -> Estimate:
        """See `Estimator`."""
        told = evidence.asked()
        seen = told.columns_n >= 0
        features = np.where(seen[:, None], self.excess_nf[told.columns_n], self.excess_kf[told.clusters_n])
        difficulty = np.where(seen, self.difficulty_n[told.columns_n], self.difficulty_k[told.clusters_n])
        covariance = np.linalg.inv(np.diag(1 / self.prior_f) + features.T @ features / self.noise)
        mean = covariance @ (features.T @ (told.errors_n - difficulty)) / self.noise
        left = told.errors_n - difficulty - features @ mean
        rest = Leftover(spread=self.leftover, noise=self.noise)
        own, variance = rest.estimate(left, told.clusters_n, len(self.difficulty_k))
        psi = self.difficulty_k + self.excess_kf @ mean + own
        spread = np.einsum("kf,fg,kg->k", self.excess_kf, covariance, self.excess_kf)
        return clipped(psi, spread + variance)
