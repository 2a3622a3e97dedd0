"""Scatter charts: labels that keep clear, a legend of all names, colours, and the same drawing every time."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.reports.charts import MUTED, PALETTE, to_svg
from modelyard.reports.heatmap import to_png
from modelyard.reports.scatter import Axis, Group, Label, Trace, apart, colours_of, scatter_chart

AXES = (Axis(label="across"), Axis(label="up"))
INSIDE = (0.0, 0.0, 500.0, 300.0)


def group(name="dots", count=20, seed=0, **fields):
    chance = np.random.default_rng(seed)
    return Group(name=name, x=chance.random(count) + 0.1, y=chance.random(count) + 0.1, **fields)


def words(figure):
    root = ElementTree.fromstring(to_svg(figure))
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def meet(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 300)), min_size=1, max_size=25))
def test_boxes_lie_apart_and_inside(wanted):
    boxes = apart(wanted, [(60.0, 11.0)] * len(wanted), taken=(), inside=INSIDE)
    for box in boxes:
        assert box[0] >= -1e-9 and box[1] >= -1e-9 and box[2] <= 500 + 1e-9 and box[3] <= 300 + 1e-9
        assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((60.0, 11.0))
    assert not any(meet(one, other) for one, other in combinations(boxes, 2))


def test_a_box_stays_where_it_is_wanted_when_it_can():
    assert apart([(100, 100)], [(20, 10)], taken=(), inside=INSIDE) == [(90, 95, 110, 105)]
    moved = apart([(100, 100)], [(20, 10)], taken=[(99, 99, 101, 101)], inside=INSIDE)[0]
    assert not meet(moved, (99, 99, 101, 101)) and abs(moved[0] - 90) < 40


def test_where_nothing_is_free_points_are_covered_before_labels():
    first, second = apart([(5, 5), (5, 5)], [(10, 3)] * 2, taken=[(0, 0, 10, 10)], inside=(0, 0, 10, 10))
    assert not meet(first, second)


def test_every_name_and_label_is_written():
    labels = [Label(text="one", x=0.2, y=0.2), Label(text="$2$", x=0.2, y=0.2, strong=True)]
    trace = Trace(name="path", x=np.array([0.1, 1.0]), y=np.array([0.1, 1.0]))
    told = words(scatter_chart([group("a"), group("b")], AXES, labels=labels, trace=trace))
    assert {"a", "b", "path", "one", "$2$", "across", "up"} <= set(told)


def drawn_labels(figure, texts):
    figure.draw_without_rendering()
    drawn = {each.get_text(): each for each in figure.axes[0].texts}
    # of the text alone: a leader line is part of the annotation's own extent
    return [mpl.text.Text.get_window_extent(drawn[text]) for text in texts]


@pytest.mark.parametrize("log", [False, True])
def test_drawn_labels_do_not_overlap(log):
    texts = [f"number {i}" for i in range(14)]
    labels = [Label(text=text, x=0.5 + i / 1000, y=0.5) for i, text in enumerate(texts)]
    axes = (Axis(label="x", log=log), Axis(label="y"))
    boxes = drawn_labels(scatter_chart([group(count=200)], axes, labels=labels), texts)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_a_label_that_has_room_stands_at_its_point():
    """Twice as far as its box: it would be, if places were reckoned before the axes have their limits."""
    figure = scatter_chart(
        [group(count=100)], AXES, labels=[Label(text="a", x=0.1, y=0.5), Label(text="b", x=1.1, y=0.5)]
    )
    for box, x in zip(drawn_labels(figure, ["a", "b"]), (0.1, 1.1), strict=True):
        at = figure.axes[0].transData.transform((x, 0.5))
        assert np.abs(np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) - at).max() < 5


def test_labels_stay_off_the_line_and_off_few_points():
    trace = Trace(name="path", x=np.array([0.0, 1.0]), y=np.array([0.5, 0.5]))
    figure = scatter_chart([group(count=3)], AXES, labels=[Label(text="on it", x=0.5, y=0.5)], trace=trace)
    box = drawn_labels(figure, ["on it"])[0]
    y = figure.axes[0].transData.transform((0.5, 0.5))[1]
    assert not box.y0 < y < box.y1


def test_colours_are_given_once_and_then_grey():
    groups = [group(colour=PALETTE[1]), *(group() for _ in range(len(PALETTE)))]
    assert colours_of(groups) == [PALETTE[1], PALETTE[0], *PALETTE[2:], MUTED]


def test_long_names_lose_their_middle_and_logarithms_have_plain_numbers():
    name = "a-very-long-name-of-a-model-that-nobody-would-read-to-its-end"
    dots = Group(name=name, x=np.array([0.5, 60.0]), y=np.array([1.0, 2.0]))
    told = words(scatter_chart([dots], (Axis(label="USD", log=True), Axis(label="y", ticks=False))))
    assert name not in told and any(text.startswith("a-very-long") and "…" in text for text in told)
    assert {"0.5", "1", "2", "50"} <= set(told) and not any("math" in text for text in told)


def test_equal_charts_are_equal_and_the_process_is_as_before():
    before = dict(mpl.rcParams)
    first, second = (scatter_chart([group()], AXES, labels=[Label(text="x", x=0.5, y=0.5)]) for _ in "ab")
    assert to_svg(first) == to_svg(second) and to_png(first)[:8] == b"\x89PNG\r\n\x1a\n"
    assert dict(mpl.rcParams) == before


def test_matplotlib_is_loaded_by_drawing():
    code = "import sys, modelyard.reports.scatter; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
