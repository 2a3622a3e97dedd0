"""Pictures of how models differ and of what each contributed: tables by layer and module, drawn by `reports`.

A layer is a column, a kind of module a row; tensors outside of the layers are told in a line above.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from modelyard.core.errors import MergeError
from modelyard.core.files import write_whole
from modelyard.merging.architecture import place_of
from modelyard.merging.contributions import Contributions, shares
from modelyard.merging.differences import Comparison, Sums, grouped, module_of
from modelyard.reports.charts import to_svg
from modelyard.reports.heatmap import Grid, HeatMap, heat_maps, to_png

#: Tensors outside of the layers that a note names.
_SHOWN = 5
_PATH_LETTERS = 70
_SUFFIXES = (".png", ".html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is drawn: maps over one grid, and for a page the same numbers by module."""

    title: str
    subtitle: str
    maps: tuple[HeatMap, ...]
    grid: Grid
    # Module, then a number a map; NaN for none.
    by_module: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """A number that is drawn, told of the tensors at some places of the list of all."""

    title: str
    of: Callable[[Sequence[int]], float]
    unit: str = ""
    # As in `HeatMap`.
    centre: float | None = None
    reach: float = 0.0
    warm_above: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where tensors stand: places of the list of all by module and layer, and those outside of layers."""

    grid: Grid
    cells: dict[tuple[int, int], list[int]]
    outside: dict[str, int]
    modules: dict[str, list[int]]


def check_picture(path: Path) -> None:
    """Find out before long work whether a picture can be made.

    Raises:
        MergeError: The path's end is no known format, its folder is not there, or a library is not.
    """
    if path.suffix not in _SUFFIXES:
        raise MergeError(f"{path}: a picture ends in {' or '.join(_SUFFIXES)}; give such a path")
    if not path.parent.is_dir():
        raise MergeError(f"{path.parent}: is not a folder; make it, or give another path for the picture")
    for library in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(library) is None:
            raise MergeError(
                f"{path}: cannot be drawn without {library}; install it with pip install 'modelyard[report]'"
            )


def write_picture(picture: Picture, path: Path) -> None:
    """Draw into a PNG file, or into an HTML page that needs no other file."""
    if path.suffix == ".png":
        heading = (picture.title, picture.subtitle)
        write_whole(path, to_png(heat_maps(picture.maps, picture.grid, heading=heading)))
    else:
        write_whole(path, _page(picture))


def comparison_picture(comparison: Comparison, *, title: str) -> Picture:
    """Where two models differ; with a base also how far both moved from it, and where they disagree."""
    sums = [each.sums for each in comparison.tensors]

    def over(of: Callable[[Sums], float]) -> Callable[[Sequence[int]], float]:
        return lambda at: of(reduce(add, (sums[i] for i in at), Sums()))

    measures = [
        _Measure(title="Distance |A − B| / |B|", unit=" %", of=over(lambda s: 100 * s.pair.relative)),
        _Measure(title="Angle between A and B", unit="°", of=over(lambda s: s.pair.degrees)),
    ]
    if comparison.has_base:
        measures += [
            _Measure(title="Change |A − base| / |base|", unit=" %", of=over(lambda s: 100 * s.task.moved_a)),
            _Measure(title="Change |B − base| / |base|", unit=" %", of=over(lambda s: 100 * s.task.moved_b)),
            _Measure(
                title="Angle between the changes A − base and B − base (90°: unrelated)",
                unit="°", of=over(lambda s: s.task.pair.degrees), centre=90.0, reach=45.0, warm_above=True,
            ),
            _Measure(
                title="Sign conflicts among the elements that both changed (50 %: unrelated)",
                unit=" %", of=over(lambda s: 100 * s.task.conflict_share), centre=50.0, reach=25.0,
                warm_above=True,
            ),
        ]  # fmt: skip
    names = [each.name for each in comparison.tensors]
    told = f"{len(names)} tensors, {comparison.whole.elements:,} elements"
    return _picture(names, measures, title=title, subtitle=told)


def contribution_picture(found: Contributions, *, title: str) -> Picture:
    """By which coefficient each parent entered a merge, and how much of the result that explains."""
    tensors = found.tensors

    def coefficient(parent: int) -> Callable[[Sequence[int]], float]:
        return lambda at: shares([tensors[i] for i in at]).coefficients[parent]

    what = "its change to the base" if found.base else "its weights"
    measures = [
        _Measure(title=f"{_tail(name)}: coefficient of {what}", of=coefficient(i), centre=0.0, reach=1.0)
        for i, name in enumerate(found.parents)
    ]
    measures.append(
        _Measure(
            title="Share of the result that the parents explain",
            unit=" %",
            of=lambda at: 100 * shares([tensors[i] for i in at]).explained,
            reach=100.0,
        )
    )
    told = f"base: {found.base}" if found.base else "no base: coefficients of the weights themselves"
    return _picture([each.name for each in tensors], measures, title=title, subtitle=told)


def _picture(names: Sequence[str], measures: Sequence[_Measure], *, title: str, subtitle: str) -> Picture:
    layout = _laid_out(names)
    if not layout.cells:
        raise MergeError(
            f"{title}: no tensor of a layer was compared, so nothing can be drawn; leave out the plot"
        )
    every = range(len(names))
    return Picture(
        title=title,
        subtitle=subtitle,
        maps=tuple(_map(each, layout, every) for each in measures),
        grid=layout.grid,
        by_module=tuple((row, tuple(each.of(at) for each in measures)) for row, at in layout.modules.items()),
    )


def _laid_out(names: Sequence[str]) -> _Layout:
    """The grid of layers and modules, in which every tensor has its place."""
    places = [place_of(name) for name in names]
    layers = sorted({(p.stack or "", p.layer) for p in places if p.layer is not None})
    stacks = {stack for stack, _ in layers}
    inside = [i for i, place in enumerate(places) if place.layer is not None]
    modules = grouped((module_of(names[i]), i) for i in inside)
    rows, columns = list(modules), {layer: i for i, layer in enumerate(layers)}
    cells = grouped(
        ((row, columns[places[i].stack or "", places[i].layer or 0]), i)
        for row, members in enumerate(modules.values())
        for i in members
    )
    return _Layout(
        grid=Grid(
            rows=[_short(row) for row in rows],
            columns=[str(n) if len(stacks) == 1 else f"{stack}.{n}" for stack, n in layers],
            x_label="layer",
        ),
        cells=cells,
        outside={_short(names[i]).rpartition(".")[2]: i for i, p in enumerate(places) if p.layer is None},
        modules={_short(row): modules[row] for row in rows},
    )


def _tail(path: str) -> str:
    """The end of a path, enough to know a model by."""
    return path if len(path) <= _PATH_LETTERS else f"…{path[-_PATH_LETTERS:]}"


def _short(name: str) -> str:
    return name.removesuffix(".weight")


def _map(measure: _Measure, layout: _Layout, every: Sequence[int]) -> HeatMap:
    values = np.full((len(layout.grid.rows), len(layout.grid.columns)), np.nan)
    for place, at in layout.cells.items():
        values[place] = measure.of(at)
    told = {"whole model": every, **{name: [i] for name, i in list(layout.outside.items())[:_SHOWN]}}
    note = "   ".join(f"{name} {_told(measure.of(at))}{measure.unit}" for name, at in told.items())
    return HeatMap(
        title=measure.title, values=values, note=note, unit=measure.unit, centre=measure.centre,
        reach=measure.reach, warm_above=measure.warm_above,
    )  # fmt: skip


def _told(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else "–"


def _page(picture: Picture) -> str:
    from modelyard.reports.page import Column, Figure, Page, Section, Table, render

    drawn = Figure(
        svg=to_svg(heat_maps(picture.maps, picture.grid)),
        alt="; ".join(each.title for each in picture.maps) + "; by layer and module",
        caption="A column is a layer, a row a kind of module. Each map has a scale of its own.",
    )
    table = Table(
        caption="All layers together",
        columns=(
            Column(title="module"),
            *(Column(title=each.title, decimals=3, unit=each.unit) for each in picture.maps),
        ),
        rows=tuple((name, *values) for name, values in picture.by_module),
    )
    sections = (
        Section(title="By layer and module", figures=(drawn,)),
        Section(title="By module", tables=(table,)),
    )
    return render(Page(title=picture.title, subtitle=picture.subtitle, sections=sections))
