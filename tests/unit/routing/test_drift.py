"""The drift alarm: how often it is false, what it finds, and what it names."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.drift import common_counts, find_drift, mix_p_value, nearest_similarity
from modelyard.routing.embedders import unit_rows
from modelyard.routing.router import Router, RouterOptions


class Points:
    """An embedder of texts that are numbers: points around the corners that a seed gives."""

    name, dimensions, fingerprint = "points", 32, "points/1"

    def embed(self, texts):
        return np.array([self.of(text) for text in texts], np.float32).reshape(-1, self.dimensions)

    def of(self, text):
        corner, number = map(int, text.split("-"))
        corners = np.random.default_rng(0).standard_normal((12, self.dimensions))
        noise = np.random.default_rng(number).standard_normal(self.dimensions)
        return unit_rows((corners[corner] + 0.8 * noise)[None].astype(np.float32))[0]


def texts(count, seed, corners=8, shares=None):
    """Prompts of a mix of corners; a seed never gives the prompts of another."""
    chosen = np.random.default_rng(seed).choice(corners, count, p=shares)
    return [f"{corner}-{seed * 100_000 + i}" for i, corner in enumerate(chosen)]


def router(seed, prompts=300, clusters=10):
    asked = texts(prompts, seed)
    errors = np.zeros((2, prompts))
    errors[1, : prompts // 2] = np.nan
    answers = Answers(
        models=("a", "b"), examples=tuple(map(str, range(prompts))), errors_mn=errors,
        cost_usd_mn=np.full((2, prompts), 0.1),
    )  # fmt: skip
    return Router.fit(answers, asked, Points(), RouterOptions(estimator="empirical_bayes", clusters=clusters))


@pytest.mark.slow
def test_prompts_of_the_same_mix_seldom_alarm_and_others_do():
    """60 routers: at 5 % at most 7 false alarms (P < 0.01); a corner of double weight is found in 35."""
    doubled = np.array([2, 1, 1, 1, 1, 1, 1, 1]) / 9
    false = found = 0
    for seed in range(1, 61):
        one = router(seed)
        false += find_drift(one, one.embedder.embed(texts(200, seed + 1000))).alarm
        found += find_drift(one, one.embedder.embed(texts(600, seed + 2000, shares=doubled))).alarm
    assert false <= 7
    assert found >= 35


def scattered(chance, count):
    """Ten groups of prompts, and as many again that are like no other."""
    corners = 3 * np.random.default_rng(99).standard_normal((10, 64))
    inside = chance.random(count)[:, None] < 0.5
    points = np.where(inside, corners[chance.integers(0, 10, count)], 0) + chance.standard_normal((count, 64))
    return unit_rows(points.astype(np.float32))


@pytest.mark.slow
def test_many_clusters_of_few_prompts_do_not_raise_the_alarm():
    """40 clusters of 200 prompts of which k-means gives some a cluster of their own.

    Of 120 draws at 5 % at most 12 alarm (P < 0.01). In the clusters of the fit prompts alone new ones fall
    elsewhere: there at least 6 of 40 alarm (P < 0.02 at 5 %), or this test would tell nothing.
    """
    false = own = 0
    for seed in range(120):
        chance = np.random.default_rng(seed)
        fit, recent = scattered(chance, 200), scattered(chance, 150)
        false += mix_p_value(*common_counts(fit, recent, 40, 0), np.random.default_rng(0)) <= 0.05
        if seed < 40:
            space = fit_clusters(fit, 40, 0)
            counts = [np.bincount(space.assign(each), minlength=40) for each in (fit, recent)]
            own += mix_p_value(*counts, np.random.default_rng(0)) <= 0.05
    assert false <= 12
    assert own >= 6


def test_common_clusters_do_not_know_which_sample_is_which():
    chance = np.random.default_rng(0)
    fit, recent = (unit_rows(chance.standard_normal((n, 8)).astype(np.float32)) for n in (60, 30))
    there, back = common_counts(fit, recent, 7, 3), common_counts(recent, fit, 7, 3)
    np.testing.assert_array_equal(there[0], back[1])
    np.testing.assert_array_equal(there[1], back[0])
    assert there[0].sum() == 60 and there[1].sum() == 30


def test_a_kind_of_prompt_that_was_never_seen_is_far():
    one = router(1)
    new = [f"{corner}-{i}" for i, corner in enumerate(np.random.default_rng(5).integers(8, 12, 60))]
    drift = find_drift(one, one.embedder.embed(new))
    assert drift.alarm and drift.p_far < 1e-6 and drift.recent_similarity < drift.fit_similarity
    assert drift.recent_k.sum() == 60 and drift.fit_k.sum() == 300


def test_clusters_where_a_model_has_no_answer_are_named():
    one = router(1, clusters=40)
    drift = find_drift(one, one.embedder.embed(texts(200, 77)))
    empty = np.flatnonzero((one.models.answers_mk[1] == 0) & (drift.recent_k > 0)).tolist()
    assert empty and drift.unsupported == {"b": tuple(empty)}


def test_the_null_of_the_mix_is_that_of_drawing_without_return():
    """Two clusters, small counts: the p-value is Fisher's exact one, as far as 4,000 draws tell."""
    from scipy.stats import fisher_exact

    fit, recent = np.array([30, 10]), np.array([3, 7])
    exact = fisher_exact([fit, recent]).pvalue
    assert mix_p_value(fit, recent, np.random.default_rng(0)) == pytest.approx(exact, abs=0.015)
    assert mix_p_value(fit, np.array([30, 10]), np.random.default_rng(0)) == 1.0


def test_an_empty_cluster_changes_nothing():
    fit, recent = np.array([30, 10, 0]), np.array([3, 7, 0])
    draws = (np.random.default_rng(0), np.random.default_rng(0))
    assert mix_p_value(fit, recent, draws[0]) == mix_p_value(fit[:2], recent[:2], draws[1])


def test_a_fit_prompt_is_not_its_own_neighbour():
    points = unit_rows(np.array([[1, 0], [1, 0.1], [0, 1]], np.float32))
    assert nearest_similarity(points, points)[0] == pytest.approx(1.0)
    near = nearest_similarity(points, points, own=True)
    assert near[0] == pytest.approx(float(points[0] @ points[1])) and near[2] < 0.2


def test_too_few_prompts_tell_nothing():
    one = router(1)
    with pytest.raises(RoutingError, match="9 recent prompts tell nothing of a mix; give at least 10"):
        find_drift(one, one.embedder.embed(texts(9, 2)))
