"""A hierarchical model with few factors: what known models' answers say of prompts helps to know a new one.

The error of model m on prompt i is d_i + a_m + u_m v_i + noise: how hard the prompt is, how weak the
model, and a few factors on which models differ (the principal components of what the known models'
answers leave). For a new model a and u have Gaussian priors with the known models' spread; n answers
give their posterior by one small linear system. What its answers leave in each cluster is shrunk and
added. With rank 0 it is a random-effects model of ability alone.

A linear-Gaussian sibling of item response theory (Birnbaum, in Lord and Novick 1968) and of
probabilistic matrix factorisation (Salakhutdinov and Mnih, NeurIPS 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Floats
from modelyard.routing.estimators import Estimate, Evidence, Known, Leftover, clipped

_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankOptions:
    """What is chosen on known models."""

    rank: int = 2
    # How far a prompt's own factors count beside the mean of its cluster, 0 to 1.
    own: float = 0.5
    # The spread of what is a model's own in a cluster, as a standard deviation of its error there.
    leftover: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """See the module."""

    # Difficulty and features [1, factors] of each known prompt, and their means in each cluster.
    difficulty_n: Floats
    features_nf: Floats
    difficulty_k: Floats
    features_kf: Floats
    # Prior variances of a new model's coefficients, [F], and the variance of one answer.
    prior_f: Floats
    noise: float
    leftover: float

    @classmethod
    def fit(cls, known: Known, options: LowRankOptions) -> LowRank:
        """From the known models; at most half as many factors: what is left tells the noise."""
        told = ~np.isnan(known.errors_mn)
        asked = np.maximum(told.sum(axis=0), 1)
        whole = float(known.errors_mn[told].mean()) if told.any() else 0.5
        difficulty = np.where(
            told.any(axis=0), np.where(told, known.errors_mn, 0.0).sum(axis=0) / asked, whole
        )
        rest = np.where(told, known.errors_mn - difficulty, 0.0)
        ability = rest.sum(axis=1) / np.maximum(told.sum(axis=1), 1)
        rest = np.where(told, rest - ability[:, None], 0.0)
        models_mr, prompts_nr = _factors(rest, min(options.rank, (len(rest) - 1) // 2))
        left = np.where(told, rest - models_mr @ prompts_nr.T, 0.0)
        means_kr = _cluster_means(prompts_nr, known)
        prompts_nr = (1 - options.own) * means_kr[known.clusters_n] + options.own * prompts_nr
        ones = np.ones((len(prompts_nr), 1))
        return cls(
            difficulty_n=difficulty,
            features_nf=np.hstack([ones, prompts_nr]),
            difficulty_k=_cluster_means(difficulty[:, None], known)[:, 0],
            features_kf=np.hstack([np.ones((known.clusters, 1)), means_kr]),
            prior_f=np.maximum(
                np.concatenate([[np.square(ability).mean()], np.square(models_mr).mean(axis=0)]),
                _LEAST_VARIANCE,
            ),
            noise=max(float(np.square(left).sum() / max(told.sum(), 1)), _LEAST_VARIANCE),
            leftover=options.leftover,
        )

    def profile(self, evidence: Evidence) -> Estimate:
        """See `Estimator`."""
        told = evidence.asked()
        seen = told.columns_n >= 0
        features = np.where(
            seen[:, None], self.features_nf[told.columns_n], self.features_kf[told.clusters_n]
        )
        difficulty = np.where(seen, self.difficulty_n[told.columns_n], self.difficulty_k[told.clusters_n])
        excess = told.errors_n - difficulty
        covariance = np.linalg.inv(np.diag(1 / self.prior_f) + features.T @ features / self.noise)
        mean = covariance @ (features.T @ excess) / self.noise
        rest = Leftover(spread=self.leftover, noise=self.noise)
        own, variance = rest.estimate(excess - features @ mean, told.clusters_n, len(self.difficulty_k))
        psi = self.difficulty_k + self.features_kf @ mean + own
        spread = np.einsum("kf,fg,kg->k", self.features_kf, covariance, self.features_kf)
        return clipped(psi, spread + variance)


def _factors(rest_mn: Floats, rank: int) -> tuple[Floats, Floats]:
    """The leading principal components: models' coordinates [M, R], prompts' of mean square 1, [N, R]."""
    if rank < 1:
        return np.zeros((len(rest_mn), 0)), np.zeros((rest_mn.shape[1], 0))
    values, vectors = np.linalg.eigh(rest_mn @ rest_mn.T)
    top = np.argsort(values)[::-1][:rank]
    sizes = np.sqrt(np.maximum(values[top], _LEAST_VARIANCE))
    scale = np.sqrt(rest_mn.shape[1])
    models: Floats = vectors[:, top] * sizes / scale
    prompts: Floats = rest_mn.T @ vectors[:, top] / sizes * scale
    return models, prompts


def _cluster_means(values_nr: Floats, known: Known) -> Floats:
    """The mean of prompts' values in each cluster, [K, R]; the mean of all where a cluster has none."""
    counts = np.bincount(known.clusters_n, minlength=known.clusters)
    sums = np.zeros((known.clusters, values_nr.shape[1]))
    np.add.at(sums, known.clusters_n, values_nr)
    whole = values_nr.mean(axis=0)
    means: Floats = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], whole)
    return means
