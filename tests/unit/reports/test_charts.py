"""Charts: what they draw, that they stay small, and that they leave nothing behind in the process."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.reports.charts import (
    PALETTE,
    Band,
    Bar,
    Line,
    Span,
    area_chart,
    bar_chart,
    cumulative_chart,
    line_chart,
    logarithmic,
    spread,
    thin,
    to_svg,
)

HOURS = np.datetime64("2013-07-01T00", "us") + np.arange(100) * np.timedelta64(1, "h")
WAVE = np.sin(np.arange(100) / 5.0)


def words(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_every_line_is_named_and_nothing_is_read_as_mathematics() -> None:
    names = ["plain", "a $x_1$ name", "<b>&"]
    lines = [Line(name=name, y=WAVE + place) for place, name in enumerate(names)]

    svg = to_svg(line_chart(HOURS, lines, y_label="departures"))

    assert {*names, "departures"} <= set(words(svg))


def test_the_svg_is_one_element_without_size_or_foreign_address() -> None:
    svg = to_svg(line_chart(HOURS, [Line(name="a", y=WAVE)], y_label="y"))

    assert svg.startswith("<svg") and svg.endswith("</svg>")
    head = svg[: svg.index(">")]
    assert "viewBox" in head and "width" not in head and "height" not in head
    assert set(re.findall(r'https?://[^"\s]+', svg)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_colours_leave_as_variables_with_the_colour_beside_them() -> None:
    svg = to_svg(line_chart(HOURS, [Line(name="a", y=WAVE)], y_label="y"))

    assert f"var(--c1, {PALETTE[0]})" in svg
    assert not re.search(rf"(?<!, ){PALETTE[0]}", svg)


def test_two_figures_share_no_id_and_every_reference_is_kept() -> None:
    first = to_svg(
        line_chart(HOURS, [Line(name="a", y=WAVE)], y_label="y", spans=[Span(start=HOURS[3], stop=HOURS[9])])
    )
    second = to_svg(line_chart(HOURS, [Line(name="b", y=WAVE)], y_label="y"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]

    assert ids[0] and ids[1] and not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        referred = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert referred and referred <= own


def test_equal_figures_give_equal_text() -> None:
    drawn = [to_svg(area_chart(HOURS, [Line(name="a", y=np.abs(WAVE))], y_label="y")) for _ in range(2)]

    assert drawn[0] == drawn[1]


def test_a_year_of_hours_stays_small() -> None:
    x = np.datetime64("2013-01-01T00", "us") + np.arange(8760) * np.timedelta64(1, "h")
    noise = np.random.default_rng(1).normal(size=(8, 8760))
    lines = [Line(name=f"l{place}", y=row) for place, row in enumerate(noise)]

    assert len(to_svg(line_chart(x, lines[:6], y_label="y"))) < 300_000
    assert (
        len(to_svg(area_chart(x, [Line(name=line.name, y=np.abs(line.y)) for line in lines], y_label="y")))
        < 300_000
    )
    assert len(to_svg(cumulative_chart(x, lines[:4], y_label="y"))) < 300_000


def test_spans_and_band_are_drawn() -> None:
    line = [Line(name="a", y=WAVE)]
    plain = line_chart(HOURS, line, y_label="y").axes[0]
    spans = [Span(start=HOURS[2], stop=HOURS[5]), Span(start=HOURS[40], stop=HOURS[41])]
    full = line_chart(HOURS, line, y_label="y", spans=spans, band=Band(low=WAVE - 1, high=WAVE + 1)).axes[0]

    assert len(full.patches) - len(plain.patches) == 2
    assert len(full.collections) - len(plain.collections) == 1


def test_running_sums_pass_over_missing_values() -> None:
    axes = cumulative_chart(
        np.arange(4.0), [Line(name="a", y=np.array([1.0, np.nan, -3.0, 1.0]))], y_label="y"
    ).axes[0]

    assert axes.lines[0].get_ydata().tolist() == [1, 1, -2, -1]


def test_a_line_without_any_number_is_still_named() -> None:
    lines = [Line(name="gone", y=np.full(100, np.nan)), Line(name="a", y=WAVE)]

    assert "gone" in words(to_svg(line_chart(HOURS, lines, y_label="y")))


def test_layers_stack_to_their_sum_with_nothing_for_a_gap() -> None:
    layers = [Line(name="a", y=np.full(1000, 0.25)), Line(name="b", y=np.full(1000, 0.75))]
    layers[1].y[:10] = np.nan

    axes = area_chart(np.arange(1000.0), layers, y_label="weight").axes[0]

    tops = [path.get_paths()[0].vertices[:, 1].max() for path in axes.collections]
    assert tops == pytest.approx([0.25, 1.0]) and axes.get_ylim() == pytest.approx((0, 1))
    assert [label.xy[1] for label in axes.texts] == pytest.approx([0.125, 0.625])


def test_one_hopeless_bar_does_not_flatten_the_others() -> None:
    bars = [Bar(name=f"m{place}", value=1.0 + place, label=f"{place}") for place in range(3)]
    bars.append(Bar(name="hopeless", value=1e6, label="1e+06"))

    figure = bar_chart(bars, x_label="error")

    assert figure.axes[0].get_xlim()[1] < 20
    assert "\u2192 1e+06" in words(to_svg(figure))


@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_of_charts_are_drawn(count: int) -> None:
    lines = [Line(name="a", y=np.zeros(count)), Line(name="b", y=np.zeros(count))]

    for chart in (line_chart, cumulative_chart, area_chart):
        assert {"a", "b"} <= set(words(to_svg(chart(HOURS[:count], lines, y_label="y"))))


def test_bars_of_nothing_are_drawn_and_do_not_cut_the_others() -> None:
    bars = [
        Bar(name=f"m{place}", value=value, label=f"{value:g}") for place, value in enumerate((0.0, 0.0, 3.0))
    ]

    assert "3" in words(to_svg(bar_chart(bars, x_label="error")))


def test_colours_given_are_not_taken_twice() -> None:
    lines = [Line(name="a", y=WAVE), Line(name="b", y=WAVE, colour=PALETTE[0]), Line(name="c", y=WAVE)]

    drawn = line_chart(HOURS, lines, y_label="y").axes[0].lines[:3]

    assert [line.get_color() for line in drawn] == [PALETTE[1], PALETTE[0], PALETTE[2]]


def test_drawing_leaves_the_global_style_alone_and_pyplot_unloaded() -> None:
    before = dict(mpl.rcParams)
    to_svg(line_chart(HOURS, [Line(name="a", y=WAVE)], y_label="y"))

    assert dict(mpl.rcParams) == before
    code = (
        "import sys, numpy as np\n"
        "import modelyard.reports.charts as c, modelyard.reports.page\n"
        "assert 'matplotlib' not in sys.modules\n"
        "c.to_svg(c.line_chart(np.arange(3.0), [c.Line(name='a', y=np.arange(3.0))], y_label='y'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(
    values=st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=1, max_size=400),
    stretches=st.integers(1, 20),
)
def test_thinning_keeps_the_extremes_the_ends_and_the_order(values: list[float], stretches: int) -> None:
    y = np.array(values)

    kept = thin(y, stretches=stretches)

    assert (np.diff(kept) > 0).all() and kept[0] == 0 and kept[-1] == len(y) - 1
    assert len(kept) <= 2 * stretches + 2
    if np.isfinite(y).any():
        assert np.nanmin(y[kept]) == np.nanmin(y) and np.nanmax(y[kept]) == np.nanmax(y)


def test_thinning_keeps_a_long_gap() -> None:
    y = np.arange(1000.0)
    y[300:700] = np.nan

    assert np.isnan(y[thin(y, stretches=10)]).sum() >= 4


@given(places=st.lists(st.floats(0, 1), max_size=12), gap=st.floats(0.01, 0.5))
def test_labels_are_moved_apart_in_order_and_within_bounds(places: list[float], gap: float) -> None:
    moved = spread(places, gap, 0.0, 1.0)

    assert len(moved) == len(places) and all(-1e-9 <= place <= 1 + 1e-9 for place in moved)
    fits = min(gap, 1 / max(len(places) - 1, 1))
    ordered = [moved[index] for index in sorted(range(len(places)), key=lambda index: places[index])]
    assert all(after - before >= fits - 1e-9 for before, after in pairwise(ordered))


def test_labels_that_do_not_touch_stay_where_they_are() -> None:
    assert spread([0.9, 0.1, 0.5], 0.2, 0.0, 1.0) == [0.9, 0.1, 0.5]


def test_an_x_axis_has_a_name_and_plain_logarithms() -> None:
    x = np.geomspace(0.004, 1.0, 50)
    figure = line_chart(x, [Line(name="a", y=x)], y_label="up", x_label="relative cost")
    logarithmic(figure.axes[0], "x")
    told = words(to_svg(figure))
    assert {"relative cost", "0.005", "0.01", "0.2", "1"} <= set(told)
    wide = line_chart(np.geomspace(1e-3, 1e3, 50), [Line(name="a", y=x)], y_label="up")
    logarithmic(wide.axes[0], "x")
    assert "0.01" in words(to_svg(wide)) and "0.02" not in words(to_svg(wide))
    assert wide.axes[0].get_xlabel() == ""
