"""The drift alarm: how often it is false, what it finds, and what it names."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers
from modelyard.routing.drift import find_drift, mix_p_value, nearest_similarity
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
    """120 routers: at 5 % at most 12 false alarms (P < 0.01 at 5 %); a corner of double weight is found."""
    doubled = np.array([2, 1, 1, 1, 1, 1, 1, 1]) / 9
    false = found = 0
    for seed in range(1, 121):
        one = router(seed)
        false += find_drift(one, one.embedder.embed(texts(200, seed + 1000))).alarm
        found += find_drift(one, one.embedder.embed(texts(600, seed + 2000, shares=doubled))).alarm
    assert false <= 12
    assert found >= 80


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
