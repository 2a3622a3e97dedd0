"""Estimators: the published example, what every one keeps to, and their errors by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.routing.estimators import Evidence, Known
from modelyard.routing.estimators.counts import EmpiricalBayes, Laplace, Means
from modelyard.routing.estimators.low_rank import LowRank, LowRankOptions
from modelyard.routing.estimators.nearest import Nearest
from modelyard.routing.estimators.transfer import Transfer

CLUSTERS, PROMPTS, MODELS = 6, 900, 24

FITS = {
    "laplace": lambda known: Laplace(clusters=known.clusters),
    "means": lambda known: Means(clusters=known.clusters),
    "empirical_bayes": lambda known: EmpiricalBayes.fit(known, strength=20.0),
    "ability": lambda known: LowRank.fit(known, LowRankOptions(rank=0, leftover=0.1)),
    "low_rank": lambda known: LowRank.fit(known, LowRankOptions(rank=2)),
    "transfer": lambda known: Transfer.fit(known, spread=1.0, leftover=0.1),
}
#: Those that know something of models in general.
INFORMED = ["empirical_bayes", "ability", "low_rank", "transfer"]


class Pool:
    """Models whose errors follow from ability, difficulty and one taste for some clusters; seeded."""

    def __init__(self, seed=0, models=MODELS):
        chance = np.random.default_rng(seed)
        self.clusters_n = chance.integers(CLUSTERS, size=PROMPTS)
        hard = chance.normal(0, 0.8, CLUSTERS)
        taste = chance.normal(0, 1, CLUSTERS)
        ability, liking = chance.normal(0, 0.7, (models, 1)), 0.7 * chance.normal(size=(models, 1))
        self.truth_mk = 1 / (1 + np.exp(-(ability + hard + liking * taste)))
        own = chance.normal(0, 0.5, PROMPTS)  # some prompts are harder than their cluster
        logit = np.log(self.truth_mk / (1 - self.truth_mk))[:, self.clusters_n] + own
        self.errors_mn = (chance.random((models, PROMPTS)) < 1 / (1 + np.exp(-logit))).astype(float)

    def known(self, models):
        return Known(errors_mn=self.errors_mn[models], clusters_n=self.clusters_n, clusters=CLUSTERS)

    def evidence(self, model, columns, *, fresh=False):
        return Evidence(
            errors_n=self.errors_mn[model, columns],
            clusters_n=self.clusters_n[columns],
            columns_n=np.full(len(columns), -1) if fresh else np.asarray(columns),
        )

    def rates(self, model):
        """The model's mean error in each cluster over all prompts."""
        sums = np.bincount(self.clusters_n, weights=self.errors_mn[model], minlength=CLUSTERS)
        return sums / np.bincount(self.clusters_n, minlength=CLUSTERS)


def by_name(names):
    return pytest.mark.parametrize("name", names)


def test_laplace_is_as_published():
    errors = np.concatenate([np.r_[np.ones(e), np.zeros(400 - e)] for e in (80, 220, 60)])
    evidence = Evidence(errors_n=errors, clusters_n=np.repeat([0, 1, 2], 400), columns_n=np.full(1200, -1))
    psi = Laplace(clusters=4).profile(evidence).psi_k
    np.testing.assert_allclose(psi, [81 / 402, 221 / 402, 61 / 402, 0.5])
    np.testing.assert_allclose(psi[:3], [0.20, 0.55, 0.15], atol=0.003)


@by_name(FITS)
def test_without_answers_there_is_still_an_estimate(name):
    pool = Pool()
    estimate = FITS[name](pool.known(range(20))).profile(pool.evidence(21, np.array([], int)))
    assert np.isfinite(estimate.psi_k).all() and np.isfinite(estimate.sd_k).all()
    assert (estimate.psi_k >= 0).all() and (estimate.psi_k <= 1).all()


@by_name(FITS)
def test_many_answers_lead_to_the_truth(name):
    pool = Pool()
    estimate = FITS[name](pool.known(range(20))).profile(pool.evidence(21, np.arange(PROMPTS)))
    np.testing.assert_allclose(estimate.psi_k, pool.rates(21), atol=0.05)


@by_name(FITS)
def test_prompts_that_were_not_asked_do_not_count(name):
    pool = Pool()
    estimator = FITS[name](pool.known(range(20)))
    columns = np.arange(100)
    some = pool.evidence(21, columns)
    told = np.array(some.errors_n)
    told[50:] = np.nan
    ragged = Evidence(errors_n=told, clusters_n=some.clusters_n, columns_n=some.columns_n)
    np.testing.assert_allclose(
        estimator.profile(ragged).psi_k, estimator.profile(pool.evidence(21, columns[:50])).psi_k
    )


@by_name(FITS)
def test_the_order_of_prompts_and_of_known_models_says_nothing(name):
    pool = Pool()
    chance = np.random.default_rng(5)
    columns = np.arange(80)
    estimate = FITS[name](pool.known(range(20))).profile(pool.evidence(22, columns))
    shuffled = FITS[name](pool.known(chance.permutation(20))).profile(
        pool.evidence(22, chance.permutation(columns))
    )
    np.testing.assert_allclose(shuffled.psi_k, estimate.psi_k, rtol=1e-7)


@by_name(FITS)
def test_new_prompts_can_be_answered(name):
    pool = Pool()
    estimate = FITS[name](pool.known(range(20))).profile(pool.evidence(21, np.arange(PROMPTS), fresh=True))
    np.testing.assert_allclose(estimate.psi_k, pool.rates(21), atol=0.08)


@by_name(INFORMED)
def test_known_answers_may_be_missing(name):
    pool = Pool()
    pool.errors_mn[np.random.default_rng(1).random(pool.errors_mn.shape) < 0.3] = np.nan
    estimate = FITS[name](pool.known(range(20))).profile(pool.evidence(21, np.arange(200)))
    assert np.isfinite(estimate.psi_k).all()


@by_name(INFORMED)
def test_an_empty_cluster_is_not_one_half_for_everybody(name):
    """The published smoothing makes all models alike there; what is known of a model must count."""
    pool = Pool()
    estimator = FITS[name](pool.known(range(16)))
    columns = np.flatnonzero(pool.clusters_n != 0)[:150]
    order = [estimator.profile(pool.evidence(m, columns)).psi_k[0] for m in range(16, 24)]
    whole = [pool.errors_mn[m].mean() for m in range(16, 24)]
    assert np.corrcoef(order, whole)[0, 1] > 0.5


def mean_square_error(name, answers):
    """Over pools and models: of the estimate, about what is true of all prompts."""
    gaps = []
    for seed in range(6):
        pool = Pool(seed)
        estimator = FITS[name](pool.known(range(16)))
        chance = np.random.default_rng(seed)
        for model in range(16, 24):
            columns = chance.choice(PROMPTS, answers, replace=False)
            gaps.append(estimator.profile(pool.evidence(model, columns)).psi_k - pool.rates(model))
    return float(np.square(gaps).mean())


def test_with_few_answers_what_is_known_of_others_helps():
    names = ("laplace", "means", "empirical_bayes", "low_rank", "transfer")
    laplace, means, bayes, low_rank, transfer = (mean_square_error(name, 40) for name in names)
    assert bayes < 0.75 * min(laplace, means)
    assert low_rank < bayes
    assert transfer < min(laplace, means)


@by_name(["ability", "low_rank"])
def test_intervals_hold_what_they_promise(name):
    """Of true rates, 90 % should lie in a 90 % interval; the simulation's own error is about 1.5 %."""
    inside = []
    for seed in range(10):
        pool = Pool(seed)
        estimator = FITS[name](pool.known(range(16)))
        for model in range(16, 24):
            estimate = estimator.profile(pool.evidence(model, np.arange(120)))
            gap = np.abs(estimate.psi_k - pool.rates(model))
            inside.append(gap < 1.645 * estimate.sd_k)
    assert 0.80 < np.mean(inside) < 0.99


def test_the_nearest_neighbours_of_every_prompt_are_all_of_them():
    errors = np.array([[0.0, 1.0, 1.0, np.nan], [1.0, 0.0, 0.0, 0.0]])
    near = Nearest(neighbours=9).predict(errors, np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[:2])
    np.testing.assert_allclose(near, [[2 / 3, 2 / 3], [0.25, 0.25]])


def test_one_neighbour_is_the_prompt_itself():
    errors = np.array([[0.0, 1.0, 1.0, 0.0]])
    eye = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(Nearest(neighbours=1).predict(errors, eye, eye), errors)
    shrunk = Nearest(neighbours=1, strength=1.0).predict(errors, eye, eye)
    np.testing.assert_allclose(shrunk, (errors + 0.5) / 2)


@by_name(FITS)
def test_a_cluster_in_which_nobody_was_asked_has_an_estimate(name):
    pool = Pool()
    empty = Known(errors_mn=pool.errors_mn[:20], clusters_n=pool.clusters_n, clusters=CLUSTERS + 1)
    estimate = FITS[name](empty).profile(pool.evidence(21, np.arange(100)))
    assert estimate.psi_k.shape == (CLUSTERS + 1,) and np.isfinite(estimate.psi_k).all()
