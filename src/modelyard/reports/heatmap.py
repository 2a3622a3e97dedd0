"""Heat maps for a page or a file: tables of numbers in, one matplotlib Figure out, in the style of `charts`.

Maps of the same rows and columns stand under one another, each with a scale of its own. What the numbers
mean is not known here. matplotlib is loaded by drawing, not by importing this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modelyard.reports.charts import INK, MUTED, PAPER, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

#: From nothing to much, and from much below a centre to much above it; lightness falls steadily.
_RISING = ("#f2f6fa", "#b9d8ec", "#56a4d6", "#0072b2", "#0a4474", "#08284d")
_AROUND = ("#8a3600", "#d55e00", "#f2b48a", "#f4f4f2", "#8fc1e3", "#0072b2", "#06355f")
_BLANK = "#eceff2"
_WIDTH_PT, _CELL_PT, _WIDEST_PT = 690.0, 15.0, 36.0
_LETTER_PT, _GAP_PT, _HEAD_PT, _FOOT_PT, _SCALE_PT = 5.2, 10.0, 32.0, 22.0, 74.0
_LINE_PT, _MOST_LETTERS = 14.0, 118
_LEGEND_STEPS = 64
_MOST_LABEL_PT = 220.0
_DOTS_AN_INCH = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """One table to be coloured, shape [row, column]; NaN stays blank.

    Colours run from zero to the highest value, or to both sides of `centre` where one is given. A few
    values far beyond all others do not stretch the scale; its end then says that there is more.
    """

    title: str
    values: Floats
    note: str = ""
    unit: str = ""
    centre: float | None = None
    # How far colours reach from zero or the centre at the least: noise shall not look like much.
    reach: float = 0.0
    # With a centre: whether what lies above it is warm, not what lies below.
    warm_above: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The rows and columns that all maps of a figure share."""

    rows: Sequence[str]
    columns: Sequence[str]
    x_label: str


def heat_maps(maps: Sequence[HeatMap], grid: Grid, *, heading: Sequence[str] = ()) -> Figure:
    """All maps under one another, each with its title, a note and its scale; lines of text above all."""
    from matplotlib.figure import Figure as New

    body = _CELL_PT * len(grid.rows)
    lines = _LINE_PT * len(heading)
    height = lines + len(maps) * (_HEAD_PT + body + _FOOT_PT) + _GAP_PT
    with house_style():
        figure = New(figsize=(_WIDTH_PT / 72, height / 72), dpi=72, facecolor=PAPER)
        for place, text in enumerate(heading, start=1):
            figure.text(12 / _WIDTH_PT, 1 - place * _LINE_PT / height, _shortened(text), color=INK)
        top = height - lines - _GAP_PT / 2
        for each in maps:
            _draw(figure, each, grid, bottom=top - _HEAD_PT - body)
            top -= _HEAD_PT + body + _FOOT_PT
        return figure


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file, sharp enough for print; equal figures give equal bytes."""
    buffer = BytesIO()
    with house_style():
        figure.savefig(buffer, format="png", dpi=_DOTS_AN_INCH, metadata={"Software": None})
    return buffer.getvalue()


def scale_of(heat_map: HeatMap) -> tuple[float, float, bool]:
    """The lowest and highest value of the colours, and whether values lie beyond."""
    finite = heat_map.values[np.isfinite(heat_map.values)]
    centre = heat_map.centre or 0.0
    distances = np.abs(finite - centre)
    reach = float(distances.max(initial=0.0))
    fence = 1.5 * float(np.quantile(distances, 0.95)) if len(distances) else 0.0
    beyond = 0 < 2 * fence < reach and heat_map.reach < reach
    reach = max(fence if beyond else reach, heat_map.reach) or 1.0
    return (centre - reach if heat_map.centre is not None else 0.0, centre + reach, beyond)


def _draw(figure: Figure, heat_map: HeatMap, grid: Grid, *, bottom: float) -> None:
    """One map with its labels, its foot at `bottom` points above the figure's."""
    height = figure.get_figheight() * 72
    left = min(_LETTER_PT * max(map(len, grid.rows), default=0) + 16, _MOST_LABEL_PT)
    cell = min(_WIDEST_PT, (_WIDTH_PT - left - _SCALE_PT) / max(1, len(grid.columns)))
    width, body = cell * len(grid.columns), _CELL_PT * len(grid.rows)
    axes = figure.add_axes((left / _WIDTH_PT, bottom / height, width / _WIDTH_PT, body / height))
    low, high, beyond = scale_of(heat_map)
    look: dict[str, Any] = {"cmap": _colours(heat_map), "vmin": low, "vmax": high}
    axes.set_facecolor(_BLANK)
    edge = 0.7 if cell > 5 else 0.0
    axes.pcolormesh(np.ma.masked_invalid(heat_map.values), **look, edgecolors=PAPER, linewidth=edge)
    _label(axes, grid, cell)
    for text, up, size, colour in ((_shortened(heat_map.title), 17, 10, INK), (heat_map.note, 5, 8, MUTED)):
        figure.text(left / _WIDTH_PT, (bottom + body + up) / height, text, fontsize=size, color=colour)
    at = ((left + width + 14) / _WIDTH_PT, bottom / height, 8 / _WIDTH_PT, min(body, 140) / height)
    _legend(figure.add_axes(at), heat_map, look, beyond=beyond)


def _label(axes: Axes, grid: Grid, cell: float) -> None:
    """Row names at the left, first on top; as many column names below as have room."""
    axes.invert_yaxis()
    axes.tick_params(length=0, pad=3)
    axes.set_yticks(np.arange(len(grid.rows)) + 0.5, grid.rows, color=INK, fontsize=8.5)
    room = _LETTER_PT * max((len(name) for name in grid.columns), default=1) + 5
    every = next((n for n in (1, 2, 4, 5, 10, 20, 25, 50, 100) if n * cell >= room), 200)
    kept = range(0, len(grid.columns), every)
    axes.set_xticks([place + 0.5 for place in kept], [grid.columns[place] for place in kept], fontsize=8)
    axes.annotate(
        grid.x_label, (0, 0), xycoords="axes fraction", xytext=(-8, -4), textcoords="offset points",
        ha="right", va="top", fontsize=8, color=MUTED, annotation_clip=False,
    )  # fmt: skip


def _legend(axes: Axes, heat_map: HeatMap, look: dict[str, Any], *, beyond: bool) -> None:
    """A narrow bar of the colours with a few values beside it."""
    from matplotlib.ticker import MaxNLocator

    low, high = look["vmin"], look["vmax"]
    edges = np.linspace(low, high, _LEGEND_STEPS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    axes.pcolormesh([0.0, 1.0], edges, middles[:, None], **look, edgecolors="face", linewidth=0.2)
    ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    texts = [f"{tick:.4g}{heat_map.unit}".replace("-", "\u2212") for tick in ticks]
    if beyond:
        finite = heat_map.values[np.isfinite(heat_map.values)]
        most = finite[np.argmax(np.abs(finite - (heat_map.centre or 0.0)))]
        axes.set_title(f"to {most:.3g}{heat_map.unit}", fontsize=7.5, color=MUTED, pad=3, loc="left")
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks(ticks, texts, fontsize=8)
    axes.tick_params(length=0, pad=4)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colours(heat_map: HeatMap) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    around = _AROUND[::-1] if heat_map.warm_above else _AROUND
    return LinearSegmentedColormap.from_list("house", _RISING if heat_map.centre is None else around)


def _shortened(text: str) -> str:
    """A line that fits: what is too long loses its middle."""
    half = _MOST_LETTERS // 2
    return text if len(text) <= _MOST_LETTERS else f"{text[:half]} … {text[-half:]}"
