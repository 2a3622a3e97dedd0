"""Panels of points and lines over scales of their own, strands across upright scales, and bars of shares.

In the style of `charts`. A scale counts numbers or names; what they mean is not known here. matplotlib is
loaded by drawing, not by importing this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.reports.charts import INK, MUTED, PALETTE, PAPER, RULE, house_style, logarithmic, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

_WIDTH_PT, _LETTER_PT = 690.0, 5.0
_LEFT_PT, _RIGHT_PT, _LEGEND_PT, _TITLE_PT, _FOOT_PT, _GAP_PT = 48.0, 14.0, 24.0, 20.0, 34.0, 18.0
_SMALL_PT = 8.0
#: A scale of ratios whose ends are nearer than this is drawn as one of distances: it has no round numbers.
_NARROW = 5.0
#: Where a strand passes that has no place on a scale, and how much of the height scales leave below.
_NOWHERE, _BELOW = -0.13, 0.2
_MOST_POINTS = 300
#: Into how many parts the numbers at an upright scale divide it.
_STEPS, _MOST_TICKS = 4, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What an axis counts. With names, places 0, 1, ... are those; without ends they follow what is drawn."""

    label: str = ""
    low: float | None = None
    high: float | None = None
    log: bool = False
    # Whether only whole numbers have a meaning.
    whole: bool = False
    # Where numbers are written, in rising order; without any, at round ones.
    ticks: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    def share(self, place: float) -> float:
        """How far up a place is, from 0 to 1; both ends are needed."""
        if self.names:
            return (place + 0.5) / len(self.names)
        low, high = self.low or 0.0, self.high or 0.0
        if high <= low:
            return 0.5
        if self.log:
            return math.log(place / low) / math.log(high / low)
        return (place - low) / (high - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strokes:
    """Points, a line, or both, shape [n] each; strokes of one name share a place in the legend."""

    x: Floats
    y: Floats
    name: str = ""
    colour: str = PALETTE[0]
    # As matplotlib has them; none where empty.
    marker: str = "o"
    size_pt: float = 4.5
    line_pt: float = 0.0
    dashed: bool = False
    alpha: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A few words at a point, above or below it."""

    text: str
    x: float
    y: float
    below: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes; the name of what goes up stands above it."""

    strokes: tuple[Strokes, ...]
    across: Scale = Scale()
    up: Scale = Scale()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Strand:
    """A line through one place on each scale, shape [scales]; NaN where it has none there."""

    places: Floats
    colour: str = MUTED
    width_pt: float = 0.9
    alpha: float = 1.0
    dashed: bool = False
    name: str = ""


def panels_chart(
    panels: Sequence[Panel], *, columns: int = 1, height_pt: float = 200.0, own_y: bool = True
) -> Figure:
    """Panels row by row under one legend; without `own_y` only the first of a row has its numbers at y."""
    from matplotlib.figure import Figure as New

    columns = max(1, min(columns, len(panels)))
    rows = -(-len(panels) // columns)
    drawn = [strokes for panel in panels for strokes in panel.strokes]
    legend = _LEGEND_PT if any(strokes.name for strokes in drawn) else 0.0
    cell = _TITLE_PT + height_pt + _FOOT_PT
    whole = legend + rows * cell
    gap = _LEFT_PT if own_y else _GAP_PT
    width = (_WIDTH_PT - _LEFT_PT - _RIGHT_PT - (columns - 1) * gap) / columns
    with house_style():
        figure = New(figsize=(_WIDTH_PT / 72, whole / 72), dpi=72)
        for place, panel in enumerate(panels):
            row, column = divmod(place, columns)
            left, bottom = _LEFT_PT + column * (width + gap), whole - legend - (row + 1) * cell + _FOOT_PT
            box = (left / _WIDTH_PT, bottom / whole, width / _WIDTH_PT, height_pt / whole)
            axes = figure.add_axes(box)
            _draw(axes, panel)
            if not own_y and column:
                axes.tick_params(labelleft=False)
        _legend(figure, drawn, whole)
        return figure


def strands_chart(scales: Sequence[Scale], strands: Sequence[Strand], *, height_pt: float = 250.0) -> Figure:
    """Upright scales side by side, and strands across them; the last strands lie on top.

    A strand without a place on a scale passes below it. Scales with numbers need both ends.
    """
    from matplotlib.figure import Figure as New

    whole = height_pt + _LEGEND_PT + 2 * _TITLE_PT
    nowhere = any(bool(np.isnan(strand.places).any()) for strand in strands)
    with house_style():
        figure = New(figsize=(_WIDTH_PT / 72, whole / 72), dpi=72)
        margin = 40 / _WIDTH_PT
        axes = figure.add_axes((margin, 8 / whole, 1 - 2 * margin, height_pt / whole))
        axes.set_xlim(0, max(1, len(scales) - 1))
        axes.set_ylim(-_BELOW if nowhere else -0.04, 1.04)
        axes.axis("off")
        for strand in strands:
            shares = [
                _NOWHERE if math.isnan(place) else scale.share(float(place))
                for scale, place in zip(scales, strand.places, strict=True)
            ]
            axes.plot(
                np.arange(len(scales)), shares, color=strand.colour, linewidth=strand.width_pt,
                alpha=strand.alpha, linestyle=_dashes(dashed=strand.dashed), clip_on=False,
            )  # fmt: skip
        for place, scale in enumerate(scales):
            _upright(axes, place, scale, room_pt=(_WIDTH_PT - 80) / max(1, len(scales) - 1))
        if nowhere:
            axes.annotate(
                "not in use", (0, _NOWHERE), xytext=(0, 0), textcoords="offset points", ha="left",
                va="center", fontsize=_SMALL_PT, color=MUTED, annotation_clip=False,
                bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5}, zorder=5,
            )  # fmt: skip
        named = [Strokes(x=np.empty(0), y=np.empty(0), name=s.name, colour=s.colour, marker="",
                         line_pt=max(1.2, s.width_pt), dashed=s.dashed) for s in strands]  # fmt: skip
        _legend(figure, named, whole)
        return figure


def shares_chart(shares: Sequence[tuple[str, float]], *, x_label: str) -> Figure:
    """Shares of a whole as bars, the first on top, each with its percentage."""
    from matplotlib.figure import Figure as New

    height = 46 + 19 * len(shares)
    left = min(_LETTER_PT * 1.1 * max(len(name) for name, _ in shares) + 14, 0.4 * _WIDTH_PT)
    with house_style():
        figure = New(figsize=(_WIDTH_PT / 72, height / 72), dpi=72)
        box = (left / _WIDTH_PT, 36 / height, 1 - (left + 60) / _WIDTH_PT, 1 - 42 / height)
        axes = figure.add_axes(box)
        places = np.arange(len(shares))[::-1]
        bars = axes.barh(places, [share for _, share in shares], height=0.62, color=PALETTE[0])
        axes.bar_label(bars, [percent(share) for _, share in shares], padding=5, color=INK)
        axes.set_yticks(places, [_shortened(name, left) for name, _ in shares], color=INK)
        axes.set_xlim(0, max(share for _, share in shares) or 1.0)
        axes.set_ylim(-0.6, len(shares) - 0.4)
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.set_xlabel(x_label)
        return figure


def percent(share: float) -> str:
    """A share as whole percents."""
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _draw(axes: Axes, panel: Panel) -> None:
    for at, strokes in enumerate(panel.strokes):
        kept = thin(strokes.y, stretches=_MOST_POINTS // 2) if strokes.line_pt else np.arange(len(strokes.y))
        filled = strokes.marker not in "x+|_"
        style = _dashes(dashed=strokes.dashed) if strokes.line_pt else "None"
        axes.plot(
            strokes.x[kept], strokes.y[kept], color=strokes.colour, alpha=strokes.alpha,
            marker=strokes.marker or "None", markersize=strokes.size_pt, markeredgewidth=0 if filled else 1.3,
            linewidth=strokes.line_pt, linestyle=style,
            zorder=2 + at / 1000, clip_on=not strokes.marker,
        )  # fmt: skip
    axes.margins(0.04)
    axes.grid(visible=True, axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=_SMALL_PT)
    axes.set_title(panel.up.label, loc="left", fontsize=9, color=MUTED, pad=6)
    width = axes.get_window_extent().width  # points, as every figure has 72 dots an inch
    axes.set_xlabel(_shortened(panel.across.label, 1.05 * width), fontsize=9)
    _scaled(axes, "x", panel.across)
    _scaled(axes, "y", panel.up)
    for note in panel.notes:
        axes.annotate(
            note.text, (note.x, note.y), xytext=(0, -7 if note.below else 7), textcoords="offset points",
            ha=_side(axes, note.x), va="top" if note.below else "bottom", fontsize=_SMALL_PT, color=INK,
            zorder=4, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )  # fmt: skip


def _side(axes: Axes, x: float) -> str:
    """On which side of its point a text has room."""
    share = axes.transAxes.inverted().transform(axes.transData.transform((x, axes.get_ylim()[0])))[0]
    return "left" if share < 0.12 else "right" if share > 0.88 else "center"


def _scaled(axes: Axes, which: str, scale: Scale) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    if scale.names:
        width = axes.get_window_extent().width / len(scale.names)
        names = [_shortened(name, width if which == "x" else 1e9) for name in scale.names]
        axis.set_ticks(range(len(names)), names)
        (axes.set_xlim if which == "x" else axes.set_ylim)(-0.5, len(names) - 0.5)
        return
    low, high = _ends(axes, which, scale)
    if scale.log and low > 0 and high >= _NARROW * low:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
        logarithmic(axes, which)
        _thin_out(axes, which, scale.ticks)
        return
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    room = axes.get_window_extent()
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    count = max(2, int(room.width / 38)) if which == "x" else max(3, int(room.height / 26))
    if scale.whole and high - low < count + 1:
        axis.set_major_locator(FixedLocator(range(math.ceil(low), math.floor(high) + 1)))
    else:
        axis.set_major_locator(MaxNLocator(min(count, 9), integer=scale.whole))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))


def _ends(axes: Axes, which: str, scale: Scale) -> tuple[float, float]:
    """The ends of an axis: those of the scale with a little room, else those of what is drawn."""
    lines = [np.asarray(line.get_xdata() if which == "x" else line.get_ydata()) for line in axes.lines]
    found = np.concatenate([np.asarray(line, np.float64) for line in lines] or [np.zeros(0)])
    found = found[np.isfinite(found)]
    low = scale.low if scale.low is not None else float(found.min(initial=np.inf))
    high = scale.high if scale.high is not None else float(found.max(initial=-np.inf))
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    if scale.log and low > 0:
        room = (high / low) ** 0.04 if high > low else 1.1
        return low / room, high * room
    room = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def _thin_out(axes: Axes, which: str, wanted: Sequence[float]) -> None:
    """Of a scale of ratios show as many round numbers as have room."""
    from matplotlib.ticker import FixedLocator

    low, high = (axes.get_xlim if which == "x" else axes.get_ylim)()
    window = axes.get_window_extent()
    room = int(window.width / 36) if which == "x" else int(window.height / 16)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = list(wanted) or [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= room:
            break
    every = max(1, -(-len(ticks) // max(2, room)))
    (axes.xaxis if which == "x" else axes.yaxis).set_major_locator(FixedLocator(ticks[::every]))


def _upright(axes: Axes, place: int, scale: Scale, *, room_pt: float) -> None:
    """One upright scale with its name above and its numbers beside it."""
    axes.plot([place, place], [0, 1], color=MUTED, linewidth=1.0, zorder=3, clip_on=False)
    halo: Any = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
    for at, text in _marks(scale):
        axes.annotate(
            _shortened(text, room_pt), (place, at), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=7.5, color=INK, annotation_clip=False, zorder=5, bbox=halo,
        )  # fmt: skip
    axes.annotate(
        _shortened(scale.label, 2 * room_pt), (place, 1.04), xytext=(0, 6 + 13 * (place % 2)), ha="center",
        textcoords="offset points", fontsize=_SMALL_PT, color=INK, annotation_clip=False,
    )  # fmt: skip


def _marks(scale: Scale) -> list[tuple[float, str]]:
    """Heights and texts: every name, or the ends and what lies between them."""
    if scale.names:
        return [(scale.share(place), name) for place, name in enumerate(scale.names)]
    low, high = scale.low or 0.0, scale.high or 0.0
    if high <= low:
        return [(0.5, shown(low))]
    if scale.ticks:
        ticks = scale.ticks[:: -(-len(scale.ticks) // _MOST_TICKS)]
        return [(scale.share(tick), shown(tick)) for tick in ticks]
    if scale.log:
        places = [low * (high / low) ** (k / _STEPS) for k in range(_STEPS + 1)]
    else:
        places = [low + (high - low) * k / _STEPS for k in range(_STEPS + 1)]
    if scale.whole:
        few = high - low <= 2 * _STEPS
        places = [float(n) for n in (range(int(low), int(high) + 1) if few else sorted(map(round, places)))]
    return [(scale.share(place), shown(place, digits=3)) for place in places]


def _legend(figure: Figure, drawn: Sequence[Strokes], whole: float) -> None:
    """All names in one row above everything."""
    x = _LEFT_PT
    seen: set[str] = set()
    for strokes in drawn:
        if not strokes.name or strokes.name in seen:
            continue
        seen.add(strokes.name)
        from matplotlib.lines import Line2D

        line, y = strokes.line_pt > 0, 1 - 11 / whole
        ends = [x, x + 14] if line else [x + 7]
        filled = strokes.marker not in "x+|_"
        figure.add_artist(
            Line2D(
                [end / _WIDTH_PT for end in ends], [y] * len(ends),
                color=strokes.colour, marker=strokes.marker or "None", markersize=5,
                markeredgewidth=0 if filled else 1.3, linewidth=strokes.line_pt,
                linestyle=_dashes(dashed=strokes.dashed) if line else "None", transform=figure.transFigure,
            )
        )  # fmt: skip
        figure.text((x + 19) / _WIDTH_PT, y, strokes.name, fontsize=8.5, color=INK, va="center")
        x += 19 + _LETTER_PT * len(strokes.name) + 18


def shown(value: float, *, digits: int = 6) -> str:
    """A number as short as it can be."""
    return f"{value:.{digits}g}".replace("-", "−") if abs(value) < 1e5 else f"{value:.3g}"


def _shortened(text: str, room_pt: float) -> str:
    letters = max(4, int(room_pt / _LETTER_PT))
    half = (letters - 1) // 2
    return text if len(text) <= letters else f"{text[:half]}…{text[-half:]}"


def _dashes(*, dashed: bool) -> Any:
    return (0, (3, 1.5)) if dashed else "-"
