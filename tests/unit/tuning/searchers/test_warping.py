"""Values as a process is shown them."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from modelyard.tuning.searchers.warping import ranked, warped


def test_the_order_stays_and_the_scale_does_not():
    drawing = random.Random(1)
    errors = [0.013 + 10 ** drawing.uniform(-4, 0) for _ in range(30)]
    values = warped([-error for error in errors])
    order = sorted(range(30), key=lambda i: errors[i])
    best, middle, worst = (values[order[i]] for i in (0, 15, 29))
    assert sorted(values, reverse=True) == [values[i] for i in order]
    share = (errors[order[15]] - errors[order[0]]) / (errors[order[29]] - errors[order[0]])
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


def test_ranks_are_the_same_whatever_the_distances():
    values = [-4.0, 2.0, 0.5, 0.25, 1e9]
    assert ranked(values) == ranked([math.atan(value) for value in values])
    assert ranked(values) == pytest.approx([-1.2816, 0.5244, 0.0, -0.5244, 1.2816], abs=1e-4)
    assert ranked([3.0, 1.0, 3.0])[0] == ranked([3.0, 1.0, 3.0])[2] > 0
    assert ranked([5.0]) == [0.0]
