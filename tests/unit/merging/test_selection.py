"""Order statistics without sorting: held against a sort, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.merging import selection
from modelyard.merging.blocks import BLOCK
from modelyard.merging.selection import Bound, select, select_in


def passes(rows):
    """The two passes over rows of magnitudes, in numpy."""
    keys = [row.view(np.int64) for row in rows]

    def count(shift, tops, bins):
        for j, key in enumerate(keys):
            if tops[j] >= 0:
                fit = key[(key >> (shift + 16)) == tops[j]] if shift < 47 else key
                np.add.at(bins[j], (fit >> shift) & 65535, 1)

    def gather(shift, tops, capacity):
        found, places = np.empty((len(rows), capacity)), np.empty((len(rows), capacity), np.int64)
        counts = np.zeros(len(rows), np.int64)
        for begin in range(0, len(rows[0]), BLOCK):
            for j in np.flatnonzero(tops >= 0):
                here = begin + np.flatnonzero((keys[j][begin : begin + BLOCK] >> shift) == tops[j])
                room = here[: max(0, capacity - counts[j])]
                found[j, counts[j] : counts[j] + len(room)] = rows[j][room]
                places[j, counts[j] : counts[j] + len(room)] = room
                counts[j] += len(here)
            yield found, places, counts

    return {"count": count, "gather": gather}


def kept(row, bound):
    return np.flatnonzero((row > bound.value) | ((row == bound.value) & (np.arange(len(row)) <= bound.place)))


def expected(row, k):
    return np.sort(np.argsort(-row, kind="stable")[:k])


@given(
    st.lists(st.sampled_from([0.0, 1e-310, 0.5, 0.5 + 2**-50, 1.0, 3.0, 1e300]), min_size=1, max_size=60),
    st.data(),
)
def test_exactly_the_largest_are_kept(values, data):
    row = np.array(values)
    k = data.draw(st.integers(0, len(row)))
    other = row[::-1].copy()
    bounds = select([k, len(row) - k], size=len(row), **passes([row, other]))
    np.testing.assert_array_equal(kept(row, bounds[0]), expected(row, k))
    np.testing.assert_array_equal(kept(other, bounds[1]), expected(other, len(row) - k))


@pytest.mark.parametrize("step", [0.0, 2.0**-52, 2.0**-36, 2.0**-20])
def test_crowded_buckets_are_divided_until_they_can_be_looked_at(step, capacity):
    row = 1.0 + step * (np.arange(5000) * 7919 % 5000)
    for k in (1, 17, 2500, 4999):
        (bound,) = select([k], size=len(row), **passes([row]), capacity=capacity)
        np.testing.assert_array_equal(kept(row, bound), expected(row, k))


@pytest.fixture(params=[1, 64, selection.CAPACITY])
def capacity(request):
    return request.param


def test_none_and_all():
    row = np.array([1.0, 2.0])
    assert select([0, 2], size=2, **passes([row, row])) == [Bound.none(), Bound.every()]


@given(
    st.lists(
        st.sampled_from([0.0, -0.0, 1e-310, 0.5, 0.5 + 2**-50, 1.0, 3.0, 1e300]), min_size=1, max_size=60
    ),
    st.integers(1, 7),
    st.data(),
)
def test_values_that_come_block_by_block_are_selected_alike(values, step, data):
    row = np.array(values)
    keep = data.draw(st.lists(st.integers(0, len(row)), min_size=1, max_size=3))

    def blocks():
        for begin in range(0, len(row), step):
            yield row[begin : begin + step]

    capacity = data.draw(st.sampled_from([1, 3, 100]))
    for k, bound in zip(keep, select_in(blocks, keep, size=len(row), capacity=capacity), strict=True):
        np.testing.assert_array_equal(kept(row, bound), expected(row, k))
