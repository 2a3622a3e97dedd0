"""Points in a plane in the style of `charts`: coloured groups with a legend, and labels that do not overlap.

A label stands at its point or as near to it as it has room, then with a line to it. What the numbers mean
is not known here. matplotlib is loaded by drawing, not by importing this module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from modelyard.reports.charts import INK, MUTED, PALETTE, PAPER, RULE, house_style, logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
#: Left, bottom, right and top of a label, in points.
Box = tuple[float, float, float, float]

_WIDTH_PT, _LEFT_PT, _BOTTOM_PT, _TOP_PT = 690.0, 46.0, 36.0, 24.0
_LETTER_PT, _ROW_PT, _LEGEND_PT, _LABEL_PT = 5.0, 14.0, 8.5, 8.0
_MOST_LETTERS = 34
#: Labels keep clear of the points of groups that have no more.
_FEW = 60
#: Rings of places that are tried around a point, their distance, and how many each has.
_RINGS, _RING_PT, _PLACES = 24, 7.0, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Points of one colour, shape [n] each; None takes the next of the palette, then grey."""

    name: str
    x: Floats
    y: Floats
    colour: str | None = None
    size_pt: float = 2.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Text at a point; it may be moved, and `strong` is drawn bold and placed first."""

    text: str
    x: float
    y: float
    colour: str = INK
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The name of an axis and how it is drawn; without ticks where its numbers mean nothing."""

    label: str
    log: bool = False
    ticks: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A line through points in their order, shape [n] each."""

    name: str
    x: Floats
    y: Floats
    colour: str = PALETTE[0]


def scatter_chart(
    groups: Sequence[Group],
    axes: tuple[Axis, Axis],
    *,
    labels: Sequence[Label] = (),
    trace: Trace | None = None,
    height_pt: float = 400.0,
) -> Figure:
    """Groups of points, named in a legend at the right, with labels and at most one line.

    The y axis' name stands above it. Labels keep clear of one another, and of points of groups of at most
    60 points.
    """
    from matplotlib.figure import Figure as New

    names = [*([trace.name] if trace else []), *(group.name for group in groups)]
    right = 24 + _LETTER_PT * min(max((len(name) for name in names), default=0), _MOST_LETTERS) + 8
    with house_style():
        figure = New(figsize=(_WIDTH_PT / 72, height_pt / 72), dpi=72)
        box = (
            _LEFT_PT / _WIDTH_PT,
            _BOTTOM_PT / height_pt,
            1 - (_LEFT_PT + right) / _WIDTH_PT,
            1 - (_BOTTOM_PT + _TOP_PT) / height_pt,
        )
        drawn = figure.add_axes(box)
        _frame(drawn, axes)
        colours = colours_of(groups)
        for group, colour in zip(groups, colours, strict=True):
            alpha = 0.75 if len(group.x) <= _FEW else 0.55
            drawn.scatter(group.x, group.y, s=group.size_pt**2, color=colour, linewidths=0, alpha=alpha)
        if trace:
            drawn.plot(trace.x, trace.y, color=trace.colour, linewidth=1.6, zorder=1)
        drawn.margins(0.05)
        drawn.autoscale_view()  # else points are not yet where they will be drawn
        for axis, name in zip(axes, "xy", strict=True):
            if axis.log:
                logarithmic(drawn, name)
        _legend(drawn, groups, colours, trace)
        _place(drawn, [group for group in groups if len(group.x) <= _FEW], labels, trace)
        return figure


def colours_of(groups: Sequence[Group]) -> list[str]:
    """The colour of each group: its own, else the next free one of the palette, grey when none is left."""
    free = iter([colour for colour in PALETTE if colour not in {group.colour for group in groups}])
    return [group.colour or next(free, MUTED) for group in groups]


def apart(wanted: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], *,
          taken: Sequence[Box], inside: Box) -> list[Box]:  # fmt: skip
    """A box for each label, in turn: as near to where it is wanted as no other box allows.

    Args:
        wanted: Where the middle of each should be, in points.
        sizes: Width and height of each.
        taken: Boxes that are to be kept clear.
        inside: Where all must lie.
    """
    placed: list[Box] = []
    for (x, y), (width, height) in zip(wanted, sizes, strict=True):
        tried = [_within(_around(x + dx, y + dy, width, height), inside) for dx, dy in _offsets(width)]
        clear = (box for box in tried if not any(_meet(box, other) for other in (*placed, *taken)))
        free = (box for box in tried if not any(_meet(box, other) for other in placed))
        placed.append(next(clear, None) or next(free, tried[0]))
    return placed


def _offsets(width: float) -> Iterator[tuple[float, float]]:
    """Steps away from a point, near ones first, right and left before up and down."""
    yield (0.0, 0.0)
    for ring in range(1, _RINGS):
        for place in range(_PLACES):
            angle = 2 * math.pi * place / _PLACES
            reach = ring * _RING_PT
            yield (reach * math.cos(angle) * (1 + width / 120), reach * math.sin(angle))


def _around(x: float, y: float, width: float, height: float) -> Box:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _within(box: Box, inside: Box) -> Box:
    """The box, moved as little as needed to lie inside."""
    dx = max(inside[0] - box[0], 0.0) - max(box[2] - inside[2], 0.0)
    dy = max(inside[1] - box[1], 0.0) - max(box[3] - inside[3], 0.0)
    return (box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy)


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _frame(drawn: Axes, axes: tuple[Axis, Axis]) -> None:
    across, up = axes
    drawn.set_xlabel(across.label)
    drawn.set_title(up.label, loc="left", fontsize=9, color=MUTED, pad=6)
    for axis, line, name in ((across, drawn.xaxis, "x"), (up, drawn.yaxis, "y")):
        if axis.ticks:
            drawn.grid(visible=True, axis=name, color=RULE, linewidth=0.6)  # type: ignore[arg-type]
        else:
            line.set_ticks([])
    drawn.set_axisbelow(True)
    drawn.tick_params(which="both", length=0)


def _legend(drawn: Axes, groups: Sequence[Group], colours: Sequence[str], trace: Trace | None) -> None:
    """One row a name at the right of the axes, from their top."""
    window = drawn.get_window_extent()  # points, as every figure has 72 dots an inch
    rows = [*([(trace.name, trace.colour, "")] if trace else [])]
    rows += [(group.name, colour, "o") for group, colour in zip(groups, colours, strict=True)]
    for place, (name, colour, marker) in enumerate(rows):
        y = 1 - (place + 0.5) * _ROW_PT / window.height
        at = [1 + 10 / window.width, 1 + 18 / window.width]
        x = at if not marker else [sum(at) / 2]
        drawn.plot(
            x, [y] * len(x), transform=drawn.transAxes, clip_on=False, color=colour, marker=marker,
            markersize=5, markeredgewidth=0, linewidth=1.6,
        )  # fmt: skip
        drawn.annotate(
            _shortened(name), (1, y), xycoords="axes fraction", xytext=(24, 0), textcoords="offset points",
            va="center", fontsize=_LEGEND_PT, color=INK, annotation_clip=False,
        )  # fmt: skip


def _shortened(name: str) -> str:
    half = _MOST_LETTERS // 2
    return name if len(name) <= _MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}"


def _place(drawn: Axes, groups: Sequence[Group], labels: Sequence[Label], trace: Trace | None) -> None:
    """Draw the labels, those that are strong first, none over another, over a point or over the line."""
    window = drawn.get_window_extent()
    inside = (window.x0, window.y0, window.x1, window.y1)
    ordered = sorted(labels, key=lambda label: not label.strong)
    points = [_spot(drawn, label.x, label.y) for label in ordered]
    sizes = [((5.6 if each.strong else _LETTER_PT) * len(each.text) + 4, _LABEL_PT + 3) for each in ordered]
    taken = [_around(*_spot(drawn, x, y), 5.0, 5.0) for g in groups for x, y in zip(g.x, g.y, strict=True)]
    taken += [_around(x, y, 3.0, 3.0) for x, y in _along(drawn, trace)]
    boxes = apart(points, sizes, taken=taken, inside=inside)
    for label, (x, y), box in zip(ordered, points, boxes, strict=True):
        middle = ((box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y)
        away = not (box[0] - 3 <= x <= box[2] + 3 and box[1] - 3 <= y <= box[3] + 3)
        drawn.annotate(
            label.text, (label.x, label.y), xytext=middle, textcoords="offset points", ha="center",
            va="center", fontsize=_LABEL_PT, color=label.colour, zorder=5,
            fontweight="bold" if label.strong else "normal",
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.9, "pad": 0.6},
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6} if away else None,
        )  # fmt: skip


def _spot(drawn: Axes, x: float, y: float) -> tuple[float, float]:
    """A point of the data, in points of the figure."""
    across, up = drawn.transData.transform((x, y))
    return float(across), float(up)


def _along(drawn: Axes, trace: Trace | None) -> Iterator[tuple[float, float]]:
    """Places on a line, at most 4 points from one another."""
    spots = [_spot(drawn, x, y) for x, y in zip(trace.x, trace.y, strict=True)] if trace else []
    for one, other in pairwise(spots):
        count = max(2, math.ceil(math.dist(one, other) / 4))
        for share in np.linspace(0.0, 1.0, count):
            yield one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])
