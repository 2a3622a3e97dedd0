"""Heat maps: the scale that is chosen, what stands in the drawing, and the same bytes every time."""

from __future__ import annotations

import struct
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from modelyard.reports.charts import to_svg
from modelyard.reports.heatmap import Grid, HeatMap, heat_maps, scale_of, to_png

GRID = Grid(rows=["q", "v"], columns=[str(n) for n in range(6)], x_label="layer")


def a_map(values=None, **fields):
    given = np.arange(12.0).reshape(2, 6) if values is None else np.asarray(values, float)
    return HeatMap(**{"title": "Norm", "values": given, **fields})


def words(figure):
    root = ElementTree.fromstring(to_svg(figure))
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, (0.0, 11.0, False)),
        ({"centre": 0.0}, (-11.0, 11.0, False)),
        ({"centre": 5.0}, (-1.0, 11.0, False)),
        ({"centre": 5.0, "reach": 40.0}, (-35.0, 45.0, False)),
        ({"reach": 100.0}, (0.0, 100.0, False)),
        ({"values": np.zeros((2, 6))}, (0.0, 1.0, False)),
        ({"values": np.full((2, 6), np.nan)}, (0.0, 1.0, False)),
        ({"values": [[np.nan, 2.0], [np.inf, 1.0]]}, (0.0, 2.0, False)),
    ],
)
def test_the_scale_covers_the_values(fields, scale):
    assert scale_of(a_map(**fields)) == scale


def test_one_value_far_beyond_does_not_stretch_the_scale():
    values = np.ones((10, 10))
    values[3, 3] = 50.0
    low, high, beyond = scale_of(a_map(values))
    assert (low, beyond) == (0.0, True) and 1.0 < high < 2.0
    grid = Grid(rows=[str(n) for n in range(10)], columns=[str(n) for n in range(10)], x_label="layer")
    assert "to 50 %" in words(heat_maps([a_map(values, unit=" %")], grid))


def test_everything_that_is_said_stands_in_the_drawing():
    text = words(heat_maps([a_map(note="whole 3"), a_map(title="Angle", unit="°")], GRID, heading=["A = x"]))
    assert {"Norm", "whole 3", "Angle", "A = x", "q", "v", "0", "5", "layer", "0°"} <= set(text)


def test_names_of_columns_that_have_no_room_are_left_out():
    wide = Grid(rows=["q"], columns=[str(n) for n in range(200)], x_label="layer")
    text = words(heat_maps([a_map(np.ones((1, 200)))], wide))
    assert "0" in text and "7" not in text and text.count("100") == 1


def test_a_heading_that_is_too_long_loses_its_middle():
    (line,) = [t for t in words(heat_maps([a_map()], GRID, heading=["x" * 100 + "y" * 100])) if "…" in t]
    assert len(line) < 130 and line.startswith("xx") and line.endswith("yy")


def test_a_png_has_a_sane_size_and_the_same_bytes_every_time():
    drawn = [to_png(heat_maps([a_map()] * maps, GRID)) for maps in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    sizes = [struct.unpack(">II", png[16:24]) for png in drawn]
    assert all(png.startswith(b"\x89PNG\r\n\x1a\n") for png in drawn)
    assert sizes[0][0] == sizes[2][0] == 1840 and 200 < sizes[0][1] < sizes[2][1] < 800


def test_nothing_stays_changed_in_the_process():
    before = dict(mpl.rcParams)
    heat_maps([a_map()], GRID)
    assert dict(mpl.rcParams) == before
