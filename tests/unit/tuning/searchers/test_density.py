"""Kernel densities: against statsmodels', by their integrals, and by what is drawn from them."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.tuning.searchers.density import Density


def points(count=30, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.random(count), 0.3 * rng.random(count), rng.integers(0, 3, count)])


@pytest.mark.filterwarnings("ignore:After 0.17:FutureWarning")  # of its random numbers, not used here
def test_it_is_the_density_of_the_reference():
    """BOHB's authors use statsmodels' `KDEMultivariate`."""
    reference = pytest.importorskip("statsmodels.nonparametric.kernel_density")
    data = points()
    theirs = reference.KDEMultivariate(data=data, var_type="ccu", bw="normal_reference")
    mine = Density.fitted(data, (0, 0, 3), least=1e-3)
    bandwidths = np.minimum(theirs.bw, [np.inf, np.inf, 2 / 3])  # theirs may leave [0, 1] for choices
    assert mine.bandwidths_d == pytest.approx(bandwidths)
    places = points(50, seed=1)
    theirs.bw = bandwidths
    assert mine.at(places) == pytest.approx(theirs.pdf(places), rel=1e-9)


def test_it_integrates_to_one_over_numbers_and_choices():
    data = points()[:, [0, 2]]
    density = Density.fitted(data, (0, 3), least=1e-3)
    grid = np.linspace(-3, 4, 7001)
    total = sum(
        np.trapezoid(density.at(np.column_stack([grid, np.full(len(grid), level)])), grid)
        for level in range(3)
    )
    assert total == pytest.approx(1.0, abs=1e-6)


def test_points_that_are_alike_still_have_a_bandwidth():
    density = Density.fitted(np.full((5, 2), 1.0), (0, 2), least=0.05)
    assert density.bandwidths_d.tolist() == [0.05, 0.05]
    assert np.isfinite(density.at(np.array([[1.0, 1.0], [0.0, 0.0]]))).all()


def test_numbers_are_drawn_within_their_range_and_so_many_times_as_wide():
    density = Density(np.array([[0.5]]), np.array([0.02]), (0,))
    rng = np.random.default_rng(0)
    drawn = np.array([density.drawn(rng, wider=3.0)[0] for _ in range(3000)])
    assert drawn.std() == pytest.approx(0.06, rel=0.06)  # four standard errors
    edge = Density(np.array([[1.0]]), np.array([0.5]), (0,))
    ends = np.array([edge.drawn(rng, wider=3.0)[0] for _ in range(500)])
    assert ends.min() >= 0 and ends.max() <= 1 and ends.min() < 0.2


def test_choices_are_kept_but_for_the_bandwidth():
    density = Density(np.array([[2.0]]), np.array([0.3]), (4,))
    rng = np.random.default_rng(0)
    drawn = [density.drawn(rng, wider=3.0)[0] for _ in range(4000)]
    assert set(drawn) == {0.0, 1.0, 2.0, 3.0}
    assert np.mean(np.array(drawn) != 2.0) == pytest.approx(0.3 * 3 / 4, abs=0.03)
