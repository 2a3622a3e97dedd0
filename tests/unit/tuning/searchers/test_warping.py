"""Values as a process is shown them."""

from __future__ import annotations

import random
import statistics

import pytest

from modelyard.tuning.searchers.warping import warped


def test_the_order_stays_and_the_scale_does_not():
    drawing = random.Random(1)
    errors = [0.013 + 10 ** drawing.uniform(-4, 0) for _ in range(30)]
    values = warped([-error for error in errors])
    ranked = sorted(range(30), key=lambda i: errors[i])
    best, middle, worst = (values[ranked[i]] for i in (0, 15, 29))
    assert sorted(values, reverse=True) == [values[i] for i in ranked]
    share = (errors[ranked[15]] - errors[ranked[0]]) / (errors[ranked[29]] - errors[ranked[0]])
    assert share < 0.02 < 0.08 < (best - middle) / (best - worst)


def test_values_that_are_normal_stay_nearly_as_they_are():
    normal = statistics.NormalDist()
    values = [normal.inv_cdf((i + 0.5) / 40) for i in range(40)]
    assert warped(values) == pytest.approx(values, abs=0.05)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_unit_does_not_matter(scale):
    values = [-1.0, -0.3, -0.1, -5.0, -0.2, -0.15]
    assert warped([value * scale + scale for value in values]) == pytest.approx(warped(values), rel=1e-3)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [1.0, 2.0], [3.0, 3.0, 4.0, 3.0]])
def test_what_has_no_shape_is_left(values):
    assert [a > b for a in warped(values) for b in warped(values)] == [a > b for a in values for b in values]


def test_values_that_diverged_do_not_hide_the_others():
    values = warped([-0.10, -0.11, -0.12, -0.13, -0.2, -1e12])
    assert values[0] - values[3] > 0.1 * (values[0] - values[5])
