"""Choosing on known models: what is true of them is found, and prompts that are judged are not fitted."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import RoutingError
from modelyard.routing.candidates import Candidate
from modelyard.routing.selection import Trials, choose, relative_brier


def pool(*, tastes, seed=0, models=20, prompts=600):
    """Models that differ in ability alone, or also in which of three kinds of prompt they are good at."""
    chance = np.random.default_rng(seed)
    kind = chance.integers(3, size=prompts)
    embeddings = (np.eye(3, 8)[kind] + 0.05 * chance.standard_normal((prompts, 8))).astype(np.float32)
    rate = 0.5 + 0.2 * chance.uniform(-1, 1, (models, 1)) + 0.25 * tastes * chance.uniform(-1, 1, (models, 3))
    return (chance.random((models, prompts)) < rate[:, kind]).astype(float), embeddings


CANDIDATES = [
    Candidate(estimator="means", clusters=1),
    Candidate(estimator="laplace", clusters=40),
    Candidate(estimator="low_rank", clusters=3, options={"leftover": 0.2}),
]
ONE, LAPLACE, THREE = (candidate.name for candidate in CANDIDATES)


@pytest.mark.parametrize(("tastes", "expected"), [(1.0, THREE), (0.0, ONE)])
def test_what_fits_the_pool_is_chosen(tastes, expected):
    errors, embeddings = pool(tastes=tastes)
    best, scores = choose(CANDIDATES, errors, embeddings, Trials(answers=60, seed=1))
    assert set(scores) == {ONE, LAPLACE, THREE}
    assert best.name == expected
    assert scores[LAPLACE] > scores[best.name]


def test_a_seed_gives_the_same():
    errors, embeddings = pool(tastes=1.0)
    one, two = (choose(CANDIDATES, errors, embeddings, Trials(answers=60, seed=1))[1] for _ in range(2))
    assert one == two


def test_one_known_model_is_too_few():
    errors, embeddings = pool(tastes=1.0, models=1)
    with pytest.raises(RoutingError, match=r"1 known models.*two or more"):
        choose(CANDIDATES, errors, embeddings, Trials(answers=60, seed=1))


def test_relative_brier_knows_differences_only():
    errors = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert relative_brier(errors + 0.3, errors) == pytest.approx(0.0)
    assert relative_brier(np.full((2, 2), 0.5), errors) == pytest.approx((0.25 + 0.25) / 4)
    assert relative_brier(np.zeros((2, 2)), np.full((2, 2), np.nan)) == 0.0
