"""The likeliest letter."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.results.engines.letters import likeliest


@pytest.mark.parametrize(
    ("logprobs", "found"),
    [
        ({"A": -2.0, " B": -1.0}, "B"),
        ({"A": -1.1, " A": -1.2, "B": -1.0}, "A"),  # spellings of one letter count together
        ({"(B)": -1.0, "the": -0.1}, "B"),
        ({"▁B": -1.0, "ĠA": -3.0}, "B"),
        ({"A": -1.0, "B": -1.0}, "A"),
        ({"the": -0.1, "b": -0.2}, None),
        ({}, None),
        ({"A": math.nan, "B": -9.0}, "B"),
        ({"A": -math.inf}, None),
    ],
)
def test_the_likeliest_letter(logprobs, found):
    assert likeliest(("A", "B"), logprobs) == found


@given(st.dictionaries(st.sampled_from("ABCD"), st.floats(-20, 0), min_size=1))
def test_it_is_the_maximum(logprobs):
    letter = likeliest(tuple("ABCD"), logprobs)
    assert logprobs[letter] >= max(logprobs.values()) - 1e-12
