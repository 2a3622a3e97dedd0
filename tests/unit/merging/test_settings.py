"""The value of a parameter at one tensor.

The figures marked "as mergekit" were read off merges by mergekit 0.1.5: `passthrough` of a Llama of
five layers whose weights are all 1, so that every value of the output is the `scale` it was given;
those of flags and words come from its function that evaluates a setting.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.merging.recipe import Conditional
from modelyard.merging.settings import position_in_slice, resolve

Q = "model.layers.0.self_attn.q_proj.weight"
DOWN = "model.layers.0.mlp.down_proj.weight"
EMBED = "model.embed_tokens.weight"


def scale(*levels, tensor=Q, position=0.0, default=None):
    settings = [{} if level is None else {"scale": level} for level in levels]
    return resolve(settings, "scale", tensor=tensor, position=position, default=default)


@pytest.mark.parametrize(
    ("knots", "values"),
    [
        ((0.0, 0.5, 0.3, 0.7, 1.0), (0.0, 0.5, 0.3, 0.7, 1.0)),
        ((2.0, 4.0, 3.0), (2.0, 3.0, 4.0, 3.5, 3.0)),
        ((2.0,), (2.0,) * 5),
    ],
)
def test_gradient_over_five_layers_as_mergekit(knots, values):
    found = [scale(knots, position=position_in_slice(i, 5)) for i in range(5)]
    assert found == pytest.approx(values)


@pytest.mark.parametrize(
    ("knots", "values"),
    [
        ((0.0, 0.5, 0.3, 0.7, 1.0), (0.0, 0.2, 0.5, 0.433333, 0.3, 0.492, 0.7, 0.88, 1.0)),
        ((1.0, 0.5, 0.7, 0.3, 0.0), (1.0, 0.8, 0.5, 0.566667, 0.7, 0.508, 0.3, 0.12, 0.0)),
        ((0.0, 1.0, 0.0), (0.0, 0.2, 0.5, 0.666667, 1.0, 0.76, 0.5, 0.2, 0.0)),
    ],
)
def test_gradient_between_knots_as_mergekit(knots, values):
    positions = (0, 0.1, 0.25, 1 / 3, 0.5, 0.62, 0.75, 0.9, 1)
    assert [scale(knots, position=p) for p in positions] == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize(
    ("knots", "values"),
    [
        ((True, False), (True,) * 11 + (False,)),
        ((True, False, True), (True,) * 5 + (False,) * 6 + (True,)),
        (("a", "b", "c", "d"), tuple("aaabbbbccccd")),
        ((False,), (False,) * 12),
    ],
)
def test_flags_and_words_step_as_mergekit(knots, values):
    positions = (0, 0.1, 0.25, 1 / 3, 0.4999, 0.5, 0.62, 2 / 3, 0.75, 0.9, 0.999, 1)
    assert tuple(scale(knots, position=p) for p in positions) == values


def test_the_only_layer_of_a_slice_takes_the_last_knot_as_mergekit():
    assert scale((10.0, 20.0), position=position_in_slice(0, 1)) == 20.0


@pytest.mark.parametrize(
    ("levels", "q", "down", "embed"),
    [
        # source, global: no match in the source goes on to the next level
        (((Conditional(filter="q_proj", value=2.0),), 3.0), 2.0, 3.0, 3.0),
        # no match anywhere is the default
        (((Conditional(filter="q_proj", value=2.0),),), 2.0, 1.0, 1.0),
        # the first match counts
        (
            (
                (
                    Conditional(filter="q_proj", value=2.0),
                    Conditional(filter="q", value=9.0),
                    Conditional(value=7.0),
                ),
            ),
            2.0,
            7.0,
            7.0,
        ),
        # source over slice over global
        ((3.0, 4.0, 5.0), 3.0, 3.0, 3.0),
        (
            ((Conditional(filter="q_proj", value=3.0),), (Conditional(filter="mlp", value=4.0),), 5.0),
            3.0,
            4.0,
            5.0,
        ),
        # slice over global, module over global
        ((None, 6.0, 5.0), 6.0, 6.0, 6.0),
        (((Conditional(filter="*", value=2.0),), 5.0), 2.0, 2.0, 2.0),
    ],
)
def test_precedence_as_mergekit(levels, q, down, embed):
    assert [scale(*levels, tensor=name, default=1.0) for name in (Q, DOWN, EMBED)] == [q, down, embed]


def test_a_condition_may_hold_a_gradient_as_mergekit():
    levels = ((Conditional(filter="q_proj", value=(2.0, 4.0)), Conditional(value=7.0)),)
    found = [scale(*levels, position=position_in_slice(i, 5)) for i in range(5)]
    assert found == pytest.approx([2.0, 2.5, 3.0, 3.5, 4.0])
    assert scale(*levels, tensor=DOWN, position=0.5) == 7.0


@pytest.mark.parametrize(("word", "matches"), [("q_proj", True), ("q_*", False), ("Q_PROJ", False)])
def test_a_filter_is_a_part_of_the_name_and_nothing_more(word, matches):
    assert scale((Conditional(filter=word, value=2.0),)) == (2.0 if matches else None)


def test_false_and_zero_are_values():
    assert scale(False, True) is False
    assert scale(0.0, 1.0) == 0.0
    assert scale(default=0.0) == 0.0


knots = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8)


@given(knots, st.floats(0, 1))
def test_a_gradient_stays_between_its_knots(given_knots, position):
    value = scale(tuple(given_knots), position=position)
    slack = 1e-9 * max(map(abs, given_knots))
    assert min(given_knots) - slack <= value <= max(given_knots) + slack


@given(knots)
def test_a_gradient_meets_every_knot(given_knots):
    count = len(given_knots)
    found = [scale(tuple(given_knots), position=position_in_slice(i, count)) for i in range(count)]
    assert all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6) for a, b in zip(found, given_knots, strict=True)
    )


@given(st.integers(2, 200))
def test_positions_run_from_0_to_1(count):
    positions = [position_in_slice(i, count) for i in range(count)]
    assert positions[0] == 0.0
    assert positions[-1] == 1.0
    assert positions == sorted(set(positions))
