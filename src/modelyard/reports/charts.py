"""Charts for a page: plain arrays in, a matplotlib Figure or a small SVG out.

No pyplot and no global state: the style lives in an `rc_context` around each chart. Colours are from
Okabe and Ito's set, which colour-blind readers can tell apart, and leave as CSS variables, so that a
page can darken them. Names stand beside their lines instead of in a legend. matplotlib is loaded by
drawing, not by importing this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.core.digests import digest_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.datetime64]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7fc4")
INK, MUTED, RULE, SPAN, PAPER = "#1b2430", "#697483", "#e2e6eb", "#f3dfd3", "#fefefe"

_VARIABLES = {
    **{colour: f"--c{place}" for place, colour in enumerate(PALETTE, start=1)},
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    SPAN: "--span",
    PAPER: "--paper",
}
_WIDTH_PT = 690.0
_FONT_PT = 9.0
_LETTER_PT = 5.4
_STYLE: Any = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",
    "font.size": _FONT_PT,
    "svg.fonttype": "none",
    "svg.hashsalt": "modelyard",
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A named sequence of values over the chart's x; `colour` None takes the next of the palette."""

    name: str
    y: Floats
    colour: str | None = None
    width_pt: float = 1.6
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of x to be shaded, ends in the unit of x."""

    start: Any
    stop: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A range around a line, shape [x] each."""

    low: Floats
    high: Floats
    colour: str = MUTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One named length, with the text at its end; `strong` marks the one the chart is about."""

    name: str
    value: float
    label: str
    strong: bool = False


def line_chart(
    x: Floats | Times,
    lines: Sequence[Line],
    *,
    y_label: str,
    spans: Sequence[Span] = (),
    band: Band | None = None,
    x_label: str = "",
) -> Figure:
    """Lines over x, named at their right ends, over shaded spans and a band.

    A line of more than 1,200 points is thinned to the lowest and highest point of each of 600 stretches.
    """
    with house_style():
        figure, axes = _named_axes([line.name for line in lines], height_pt=235)
        if x_label:
            axes.set_xlabel(x_label)
        for span in spans:
            axes.axvspan(span.start, span.stop, color=SPAN, linewidth=0, zorder=0)
        if band is not None:
            kept = thin(band.high)
            axes.fill_between(
                x[kept], band.low[kept], band.high[kept], color=band.colour, alpha=0.18, linewidth=0
            )
        colours = _colours(lines)
        for line, colour in zip(lines, colours, strict=True):
            kept = thin(line.y)
            axes.plot(x[kept], line.y[kept], color=colour, linewidth=line.width_pt, linestyle=_dashes(line))
        _finish(axes, x, y_label)
        _name_ends(axes, lines, colours, [_last(line.y) for line in lines])
        return figure


def cumulative_chart(x: Floats | Times, lines: Sequence[Line], *, y_label: str) -> Figure:
    """Running sums of the lines, with the zero line; a NaN adds nothing."""
    sums = [
        Line(
            name=line.name,
            y=np.nancumsum(line.y),
            colour=line.colour,
            width_pt=line.width_pt,
            dashed=line.dashed,
        )
        for line in lines
    ]
    figure = line_chart(x, sums, y_label=y_label)
    figure.axes[0].axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    return figure


def area_chart(x: Floats | Times, layers: Sequence[Line], *, y_label: str) -> Figure:
    """Layers stacked from zero, named at the right where each ends; first layer lowest.

    More than 400 points are averaged to 400 stretches of equal length.
    """
    with house_style():
        figure, axes = _named_axes([layer.name for layer in layers], height_pt=255)
        starts = np.unique(np.linspace(0, len(x), min(len(x), 400), endpoint=False).astype(int))
        sizes = np.diff(np.append(starts, len(x)))
        values = np.stack([np.add.reduceat(np.nan_to_num(layer.y), starts) / sizes for layer in layers])
        colours = _colours(layers)
        axes.stackplot(x[starts], values, colors=colours, edgecolor=PAPER, linewidth=0.4)
        axes.set_ylim(0, float(values.sum(axis=0).max()) or 1.0)
        _finish(axes, x, y_label)
        tops = np.cumsum(values[:, -1])
        _name_ends(axes, layers, colours, list(tops - values[:, -1] / 2))
        return figure


def bar_chart(bars: Sequence[Bar], *, x_label: str) -> Figure:
    """Horizontal bars from zero, first on top, each with its name before it and its label after it.

    A bar of more than four times the median is cut there, and its label says so with an arrow: one hopeless
    value must not flatten all the others.
    """
    with house_style():
        figure = _figure(height_pt=42 + 19 * len(bars))
        left = _LETTER_PT * max(len(bar.name) for bar in bars) + 14
        axes = figure.add_axes(_box(figure, left, right=70))
        places = np.arange(len(bars))[::-1]
        colours = [PALETTE[0] if bar.strong else MUTED for bar in bars]
        limit = 4 * float(np.median([bar.value for bar in bars])) or np.inf
        drawn = axes.barh(places, [min(bar.value, limit) for bar in bars], height=0.62, color=colours)
        for patch, bar in zip(drawn, bars, strict=True):
            patch.set_alpha(1.0 if bar.strong else 0.55)
        labels = [f"\u2192 {bar.label}" if bar.value > limit else bar.label for bar in bars]
        axes.bar_label(drawn, labels, padding=5, color=INK)
        axes.set_yticks(places, [bar.name for bar in bars], color=INK)
        axes.tick_params(length=0)
        axes.set_xlabel(x_label)
        axes.xaxis.grid(visible=True, color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        return figure


def to_svg(figure: Figure) -> str:
    """The figure as one `<svg>` element: no size, no document head, colours as CSS variables.

    Coordinates are rounded to a hundredth of a point; words and numbers that are read are not. Every id
    starts with a digest of the drawing, so that several figures can stand in one page. Equal figures give
    equal text.
    """
    buffer = StringIO()
    with house_style():
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(?<=\d\.\d\d)\d+", "", tag[0]), text)
    text = re.sub(r">\s+<", "><", text)
    return _as_variables(_own_ids(text)).strip()


def thin(y: Floats, *, stretches: int = 600) -> npt.NDArray[np.int64]:
    """The places of y to draw: all when few, else the lowest and highest of each stretch, in order.

    The ends are always kept. A stretch without a number keeps its first place, so that a gap stays.
    """
    if len(y) <= 2 * stretches:
        return np.arange(len(y))
    bounds = np.linspace(0, len(y), stretches + 1).astype(int)
    kept = {0, len(y) - 1}
    for start, stop in pairwise(bounds):
        part = y[start:stop]
        if np.isnan(part).all():
            kept.add(int(start))
        else:
            kept.update((int(start + np.nanargmin(part)), int(start + np.nanargmax(part))))
    return np.array(sorted(kept), dtype=np.int64)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as needed to lie `gap` apart, in their order, within [low, high].

    When they do not fit, the gap shrinks to what does.
    """
    if not places:
        return []
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [0.0] * len(places)
    floor = low
    for rank, index in enumerate(order):
        ceiling = high - gap * (len(order) - 1 - rank)
        moved[index] = min(max(places[index], floor), ceiling)
        floor = moved[index] + gap
    return moved


def logarithmic(axes: Axes, which: str) -> None:
    """Make the axis `x` or `y` logarithmic, with plain numbers at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = sorted(axis.get_view_interval())
    steps = (1.0, 2.0, 5.0) if high < 1e4 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def house_style() -> Iterator[None]:
    """The look of all charts, for as long as one is drawn or saved."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield


def _figure(height_pt: float) -> Figure:
    from matplotlib.figure import Figure as New

    return New(figsize=(_WIDTH_PT / 72, height_pt / 72), dpi=72)


def _named_axes(names: Sequence[str], height_pt: float) -> tuple[Figure, Axes]:
    """Axes in a new figure that leaves room for the names at the right."""
    figure = _figure(height_pt)
    right = min(_LETTER_PT * max((len(name) for name in names), default=0) + 32, 0.35 * _WIDTH_PT)
    return figure, figure.add_axes(_box(figure, left=44, right=right))


def _box(figure: Figure, left: float, right: float) -> tuple[float, float, float, float]:
    height = figure.get_figheight() * 72
    return (left / _WIDTH_PT, 30 / height, 1 - (left + right) / _WIDTH_PT, 1 - 48 / height)


def _finish(axes: Axes, x: Floats | Times, y_label: str) -> None:
    """Grid, limits, the y label above the axis, and short dates."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.set_title(y_label, loc="left", fontsize=_FONT_PT, color=MUTED, pad=6)
    if x[0] != x[-1]:
        axes.set_xlim(x[0], x[-1])
    axes.margins(y=0.04)
    if np.issubdtype(x.dtype, np.datetime64):
        locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        dates = ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(dates)


def _name_ends(axes: Axes, lines: Sequence[Line], colours: Sequence[str], ends: Sequence[float]) -> None:
    """Each name with a stub of its line right of the axes, near the height of its end, none touching."""
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height  # points, as every figure has 72 dots an inch
    gap = (high - low) * (_FONT_PT + 3) / height
    known = [end if np.isfinite(end) else low for end in ends]
    stub = [1 + 5 / axes.get_window_extent().width, 1 + 19 / axes.get_window_extent().width]
    for line, colour, place in zip(lines, colours, spread(known, gap, low, high), strict=True):
        axes.plot(
            stub,
            [place, place],
            transform=axes.get_yaxis_transform(),
            clip_on=False,
            color=colour,
            linewidth=line.width_pt,
            linestyle=_dashes(line),
        )
        axes.annotate(
            line.name,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(24, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def _colours(lines: Sequence[Line]) -> list[str]:
    taken = {line.colour for line in lines}
    free = [colour for colour in PALETTE if colour not in taken] or list(PALETTE)
    chosen, used = [], 0
    for line in lines:
        chosen.append(line.colour or free[used % len(free)])
        used += line.colour is None
    return chosen


def _dashes(line: Line) -> Any:
    return (0, (3, 1.5)) if line.dashed else "-"


def _last(y: Floats) -> float:
    finite = y[np.isfinite(y)]
    return float(finite[-1]) if len(finite) else float("nan")


def _own_ids(text: str) -> str:
    prefix = "f" + digest_bytes(text.encode())[7:15] + "-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = text.replace("url(#", f"url(#{prefix}")
    return text.replace('href="#', f'href="#{prefix}')


def _as_variables(text: str) -> str:
    for colour, name in _VARIABLES.items():
        text = re.sub(rf"(?<=: ){colour}\b", f"var({name}, {colour})", text)
    return text
