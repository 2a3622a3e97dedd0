"""Estimators of a model's errors per cluster from its answers to a few prompts.

Known models have answered many prompts; a new one a few of them, or others. An estimator is fitted on
the known ones once, and then profiles each new model by itself: the profile of one model never depends
on other new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from modelyard.routing.answers import Floats, Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What known models answered."""

    # [M, N]; NaN where a model was not asked.
    errors_mn: Floats
    # The cluster of each prompt, [N], and how many clusters there are.
    clusters_n: Integers
    clusters: int

    def difficulty(self) -> Floats:
        """The mean error of each prompt over the models that were asked, [N]; of all where none was."""
        told = ~np.isnan(self.errors_mn)
        asked, sums = told.sum(axis=0), np.where(told, self.errors_mn, 0.0).sum(axis=0)
        whole = float(sums.sum() / asked.sum()) if asked.any() else 0.5
        difficulty: Floats = np.where(asked > 0, sums / np.maximum(asked, 1), whole)
        return difficulty


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A new model's answers to n prompts."""

    # [n]; NaN where it was not asked, 1 where it failed.
    errors_n: Floats
    clusters_n: Integers
    # Where the prompts stand among those of the known models; -1 for a prompt that is new.
    columns_n: Integers

    def asked(self) -> Evidence:
        """Without the prompts that were not asked."""
        told = ~np.isnan(self.errors_n)
        return Evidence(
            errors_n=self.errors_n[told], clusters_n=self.clusters_n[told], columns_n=self.columns_n[told]
        )

    def counts(self, clusters: int) -> tuple[Floats, Floats]:
        """Errors and answers in each cluster; [K], [K]."""
        told = self.asked()
        errors = np.bincount(told.clusters_n, weights=told.errors_n, minlength=clusters)
        answers = np.bincount(told.clusters_n, minlength=clusters)
        return errors.astype(np.float64), answers.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A model's error in each cluster, with the standard deviation of what is not known about it."""

    psi_k: Floats
    sd_k: Floats


class Estimator(Protocol):
    """Profiles models."""

    def profile(self, evidence: Evidence) -> Estimate:
        """The estimate from a model's answers; without any it is what is known of models in general."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What is a model's own in a cluster: normal with a standard deviation, seen through noisy answers."""

    spread: float
    # The variance of one answer.
    noise: float

    def estimate(self, left_n: Floats, clusters_n: Integers, clusters: int) -> tuple[Floats, Floats]:
        """Its posterior mean and variance in each cluster, [K], from what a model leaves unexplained, [n]."""
        counts = np.bincount(clusters_n, minlength=clusters)
        sums = np.bincount(clusters_n, weights=left_n, minlength=clusters)
        prior = self.spread**2
        share = prior / (prior * counts + self.noise)
        return np.asarray(share * sums, np.float64), np.asarray(share * self.noise, np.float64)


def clipped(psi_k: Floats, variance_k: Floats) -> Estimate:
    """An estimate within what errors can be."""
    return Estimate(psi_k=np.clip(psi_k, 0.0, 1.0), sd_k=np.sqrt(np.maximum(variance_k, 0.0)))
