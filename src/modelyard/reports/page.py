"""A self-contained HTML page from records: sections, figures, tables. No external resource at all.

All text is escaped by the template; only `Figure.svg` enters as markup, and it has to come from
`reports.charts.to_svg`. The page knows nothing of what its numbers mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

Value = str | int | float | bool | None

MISSING = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One number or word of the head of the page, with what it is."""

    value: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing, the words for whoever cannot see it, and the caption for whoever can."""

    svg: str
    alt: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How one column of a table is shown.

    `best` marks the lowest or the highest number; `heat` shades each number, the higher the darker, on the
    scale of all heated columns of the table together.
    """

    title: str
    decimals: int = 2
    unit: str = ""
    best: str | None = None  # "low" or "high"
    heat: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of plain values under their columns; `strong` are the places of rows to be set off.

    Rows in `unranked` do not compete for the best of a column.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    strong: frozenset[int] = frozenset()
    unranked: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading with paragraphs, then figures, tables, and terms with their definitions."""

    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()

    @property
    def anchor(self) -> str:
        """The section's id in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page; section titles must differ, as they name the anchors."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    facts: tuple[Fact, ...] = ()
    footer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value ready for the template; `heat` is 0 (lowest) to 100, None without shading.

    `numeric` is true for a number and for nothing in a column of numbers: both stand at the right.
    """

    text: str
    sort: str
    numeric: bool
    best: bool = False
    heat: int | None = None


def render(page: Page) -> str:
    """The page as HTML text, ending in a line break."""
    environment = Environment(
        loader=PackageLoader("modelyard.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page, cells_of=cells_of) + "\n"


def cells_of(table: Table) -> list[list[Cell]]:
    """The table's rows as cells: numbers formatted, the best of each column marked, heat measured."""
    best = [_best(table, place) for place in range(len(table.columns))]
    low, high = _heat_scale(table)
    numeric = [any(_is_number(row[place]) for row in table.rows) for place in range(len(table.columns))]
    return [
        [
            Cell(
                text=shown(value, column),
                sort=_sort_key(value),
                numeric=numeric[place] and not isinstance(value, str),
                best=_is_number(value) and index not in table.unranked and value == best[place],
                heat=_heat(value, low, high) if column.heat else None,
            )
            for place, (value, column) in enumerate(zip(row, table.columns, strict=True))
        ]
        for index, row in enumerate(table.rows)
    ]


def shown(value: Value, column: Column) -> str:
    """A value as its column writes it: thousands apart, decimals alike, a dash for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}{column.unit}"
    if isinstance(value, float):
        return f"{value:,.{column.decimals}f}{column.unit}".replace("-", "\u2212")
    return value


def _best(table: Table, place: int) -> Value:
    side = table.columns[place].best
    numbers = [
        row[place]
        for index, row in enumerate(table.rows)
        if index not in table.unranked and _is_number(row[place])
    ]
    if side is None or not numbers:
        return None
    return _ends(numbers)[0 if side == "low" else 1]


def _heat_scale(table: Table) -> tuple[float, float]:
    """The heated columns' lowest number, and a fence above which an outlier no longer counts."""
    numbers = [
        value
        for row in table.rows
        for value, column in zip(row, table.columns, strict=True)
        if column.heat and _is_number(value)
    ]
    if not numbers:
        return (0.0, 1.0)
    low, high = _ends(numbers)
    ordered = sorted(float(value) for value in numbers if value is not None)
    fence = 2.5 * (ordered[(3 * len(ordered)) // 4] - low) + low
    return (low, min(high, fence) if fence > low else high)


def _ends(numbers: Sequence[Value]) -> tuple[float, float]:
    floats = [float(value) for value in numbers if value is not None]
    return min(floats), max(floats)


def _heat(value: Value, low: float, high: float) -> int | None:
    if not _is_number(value) or value is None or high <= low:
        return None
    return round(100 * min(max((float(value) - low) / (high - low), 0.0), 1.0))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _sort_key(value: Value) -> str:
    return repr(float(value)) if _is_number(value) and value is not None else ""
