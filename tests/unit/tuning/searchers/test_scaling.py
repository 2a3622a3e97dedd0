"""Places between 0 and 1: coordinates come back, and none is out of reach or out of range."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.testing.searcher_contract import MIXED, assert_inside
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searchers.scaling import (
    coordinate,
    even,
    fixed,
    inside,
    nearest,
    place,
    settled,
    size,
    sobol_point,
)

NUMBERS = [each for each in MIXED if each.kind != "choice"]


@given(at=st.floats(-0.5, 1.5))
@pytest.mark.parametrize("dimension", NUMBERS, ids=lambda d: d.name)
def test_the_nearest_coordinate_is_in_the_dimension(dimension, at):
    value = nearest(dimension, at)
    assert_inside(dimension, value)
    assert 0 <= place(dimension, value) <= 1


@pytest.mark.parametrize("dimension", NUMBERS, ids=lambda d: d.name)
def test_both_ends_can_be_reached(dimension):
    assert nearest(dimension, 0.0) == pytest.approx(dimension.low, rel=1e-12)
    assert nearest(dimension, 1.0) == pytest.approx(dimension.high, rel=1e-12)


@pytest.mark.parametrize("dimension", [d for d in MIXED if size(d) is not None], ids=lambda d: d.name)
def test_every_value_comes_back_from_its_place(dimension):
    values = [coordinate(dimension, i) for i in range(size(dimension))]
    assert len(set(values)) == len(values)
    for value in values:
        assert_inside(dimension, value)
        if dimension.kind != "choice":
            assert nearest(dimension, place(dimension, value)) == value


@given(value=st.floats(1e-5, 1.0))
def test_floats_come_back_from_their_place(value):
    rate = Dimension(name="rate", kind="float", low=1e-5, high=1.0, log=True)
    assert math.isclose(nearest(rate, place(rate, value)), value, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        (Dimension(name="a", kind="float", low=0, high=1), None),
        (Dimension(name="a", kind="float", low=0, high=1, step=0.1), 11),
        (Dimension(name="a", kind="float", low=0.1, high=0.4, step=0.1), 4),
        (Dimension(name="a", kind="float", low=2, high=2), 1),
        (Dimension(name="a", kind="int", low=-2, high=2), 5),
        (Dimension(name="a", kind="int", low=16, high=128, step=16), 8),
        (Dimension(name="a", kind="choice", choices=("1", "2")), 2),
    ],
)
def test_sizes(dimension, expected):
    assert size(dimension) == expected


def test_steps_are_written_as_people_write_them():
    tenths = Dimension(name="a", kind="float", low=0.0, high=1.0, step=0.1)
    assert [settled(tenths, 0.1 * k) for k in range(11)] == [k / 10 for k in range(11)]
    assert settled(Dimension(name="c", kind="choice", choices=("null",)), "null") == "null"


def test_values_are_drawn_evenly():
    """Each of three integers by a third of the places: rounding would give the middle one half."""
    three = Dimension(name="a", kind="int", low=0, high=2)
    drawn = [even(three, (k + 0.5) / 300) for k in range(300)]
    assert [drawn.count(k) for k in range(3)] == [100, 100, 100]


def test_a_sequence_of_points_covers_the_range_and_repeats():
    points = [sobol_point(MIXED, seed=3, index=i) for i in range(32)]
    assert points[5] == sobol_point(MIXED, seed=3, index=5)
    assert points != [sobol_point(MIXED, seed=4, index=i) for i in range(32)]
    rates = [place(MIXED[1], point["rate"]) for point in points]
    assert sorted(int(rate * 4) for rate in rates) == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8
    assert all(inside(MIXED, point) for point in points)


def test_what_is_inside():
    point = sobol_point(MIXED, seed=0, index=0)
    assert not inside(MIXED, {**point, "negative": 0.0})
    assert not inside(MIXED, {**point, "optimizer": '"lion"'})
    assert not inside(MIXED, {**point, "layers": True})
    assert not inside(MIXED, {k: v for k, v in point.items() if k != "rate"})


def test_dimensions_of_one_value():
    assert fixed(MIXED) == {"one": 0.5, "only": '"it"', "single": 3}
