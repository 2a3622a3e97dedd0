"""Panels, strands and bars of shares: what is written on them, and where things stand."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.reports.charts import to_svg
from modelyard.reports.panels import (
    Note,
    Panel,
    Scale,
    Strand,
    Strokes,
    panels_chart,
    percent,
    shares_chart,
    shown,
    strands_chart,
)


def words(figure):
    root = ElementTree.fromstring(to_svg(figure))
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def points(count, name="", **look):
    x = np.arange(count, dtype=float)
    return Strokes(name=name, x=x, y=x, **look)


def test_names_stand_once_in_the_legend_and_labels_at_their_panel():
    panel = Panel(
        strokes=(points(3, "a $x_1$"), points(4, "a $x_1$"), points(5)), across=Scale(label="step"),
        up=Scale(label="loss"), notes=(Note(text="here", x=1, y=1),),
    )  # fmt: skip
    told = words(panels_chart([panel]))
    assert told.count("a $x_1$") == 1
    assert {"step", "loss", "here"} <= set(told)


def test_only_the_first_of_a_row_has_numbers_at_a_shared_y():
    panels = [Panel(strokes=(points(3),), across=Scale(names=("p", "q", "r"))) for _ in range(5)]
    both = words(panels_chart(panels, columns=2, own_y=True))
    first = words(panels_chart(panels, columns=2, own_y=False))
    assert (both.count("2"), first.count("2")) == (5, 3)


def test_all_points_are_drawn_and_long_lines_are_thinned():
    figure = panels_chart([Panel(strokes=(points(900), points(900, marker="", line_pt=1.0)))])
    dots, line = figure.axes[0].lines
    assert len(dots.get_xdata()) == 900
    assert len(line.get_xdata()) <= 300


def test_the_ends_given_are_kept_and_a_log_scale_has_round_numbers():
    scale = Scale(label="lr", low=1e-5, high=1e-1, log=True)
    x = np.array([1e-4, 1e-3])
    figure = panels_chart([Panel(strokes=(Strokes(x=x, y=x),), across=scale)])
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    assert axes.get_xscale() == "log" and low < 1e-5 and high > 1e-1 and high / low < 1e5
    assert {"0.001", "0.1"} <= set(words(figure))


@pytest.mark.parametrize("scale", [Scale(low=2.0, high=2.0), Scale(low=0.9, high=1.1, log=True), Scale()])
def test_narrow_and_empty_scales_can_be_drawn(scale):
    nothing = Strokes(x=np.empty(0), y=np.empty(0))
    assert words(panels_chart([Panel(strokes=(nothing,), across=scale, up=scale)]))


def test_whole_numbers_are_written_as_such():
    panels = [Panel(strokes=(points(4),), across=Scale(low=0, high=3, whole=True))]
    assert {"0", "1", "2", "3"} <= set(words(panels_chart(panels, columns=4)))
    told = words(strands_chart([Scale(low=1, high=4, whole=True), Scale(low=0, high=1)], []))
    assert {"1", "2", "3", "4"} <= set(told) and "3.25" not in told


@given(st.floats(1e-9, 1e9), st.floats(1.001, 1e6), st.floats(0, 1), st.booleans())
def test_a_share_is_how_far_a_place_is_on_its_scale(low, ratio, at, log):
    scale = Scale(low=low, high=low * ratio, log=log)
    place = low * ratio**at if log else low + (low * ratio - low) * at
    assert scale.share(place) == pytest.approx(at, abs=1e-6)


def test_names_divide_a_scale_evenly():
    scale = Scale(names=("a", "b"))
    assert [scale.share(0), scale.share(1)] == [0.25, 0.75]


def test_a_strand_without_a_place_passes_below_and_is_told():
    scales = [Scale(label="one", low=0, high=1), Scale(label="two", names=("p", "q"))]
    figure = strands_chart(scales, [Strand(places=np.array([0.5, math.nan]), name="x")])
    assert list(figure.axes[0].lines[0].get_ydata()) == [0.5, pytest.approx(-0.13)]
    assert {"not in use", "one", "two", "p", "q", "x"} <= set(words(figure))
    assert "not in use" not in words(strands_chart(scales, [Strand(places=np.array([0.5, 1.0]))]))


def test_shares_are_bars_with_percents_and_none_is_cut():
    figure = shares_chart([("lr", 0.9), ("wd", 0.098), ("bs", 0.002)], x_label="estimated")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.9, 0.098, 0.002]
    assert {"lr", "90 %", "10 %", "under 1 %", "estimated"} <= set(words(figure))


def test_numbers_in_words():
    assert [percent(x) for x in (0.0, 0.001, 0.126, 1.0)] == ["0 %", "under 1 %", "13 %", "100 %"]
    assert [shown(x) for x in (-0.5, 1e-05, 123456.0)] == ["−0.5", "1e−05", "1.23e+05"]
