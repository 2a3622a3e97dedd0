"""The figures of the ELPA report, each from the tables of a run.

matplotlib is loaded by drawing, not by importing. What stands around a figure is the report's matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.ensemble.report.headline import NAMES, shown_name
from modelyard.ensemble.report.inputs import Run
from modelyard.ensemble.report.shocks import WINDOW_STEPS
from modelyard.reports.page import Figure

if TYPE_CHECKING:
    import pandas as pd

    from modelyard.reports.charts import Line, Times

_LAYERS = 6
_BARS = 24
_LEVELS = (
    ("expert", "How much each expert counts in the policy's final forecast"),
    ("meta", "How the meta-aggregator divides its trust among mixes, route and experts"),
)


def error_bars(ranking: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Mean absolute error of the best forecasters and of the policy as bars; None when nobody has one."""
    from modelyard.reports.charts import Bar, bar_chart, to_svg

    bars = [
        Bar(name=shown_name(row), value=row["mae"], label=f"{row['mae']:.3g}", strong=row["kind"] == "policy")
        for row in ranking
        if row["mae"] is not None
        and not row["kind"].endswith("_hindsight")  # those stand beyond what one can know
    ]
    bars = [bar for place, bar in enumerate(bars) if place < _BARS or bar.strong]
    if not bars:
        return None
    told = ", ".join(f"{bar.name} {bar.label}" for bar in bars)
    return Figure(
        svg=to_svg(bar_chart(bars, x_label="mean absolute error over all leads")),
        alt=f"Bars of mean absolute error, best first: {told}",
    )


def shock_figure(run: Run, rows: pd.DataFrame, shock: pd.Series[Any]) -> Figure:
    """Truth, policy and the best expert of each group around one shock.

    Args:
        run: the run that the rows are of.
        rows: the backtest's rows of one lead, by time.
        shock: a row of `largest_shocks`.
    """
    from modelyard.reports.charts import INK, PALETTE, Line, Span, line_chart, to_svg

    one = rows[rows["series"] == shock["series"]].reset_index(drop=True)
    centre = int((one["target_time"] - shock["target_time"]).abs().idxmin())
    part = one.iloc[max(centre - WINDOW_STEPS, 0) : centre + WINDOW_STEPS + 1]
    times = _instants(part.set_index("target_time"))
    lines = [Line(name="truth", y=part["y"].to_numpy(float), colour=INK, width_pt=2.2)]
    for group, colour in (("online", PALETTE[1]), ("offline", PALETTE[2])):
        name = run.best(group)
        if name is not None:
            y = part[f"expert:{name}"].to_numpy(float)
            lines.append(Line(name=f"{name} ({group})", y=y, colour=colour, width_pt=1.2, dashed=True))
    lines.append(Line(name="policy", y=part["policy"].to_numpy(float), colour=PALETTE[0], width_pt=2.0))
    half = (times[1] - times[0]) / 2 if len(times) > 1 else times[0] - times[0]
    spans = [
        Span(start=times[start] - half, stop=times[stop] + half)
        for start, stop in _stretches((part["mutant"] | part["dirty"]).tolist())
    ]
    word = "below" if shock["gap"] < 0 else "above"
    moment = shock["target_time"].strftime("%d %B %Y, %H:%M UTC")
    y, gap, expected = (amount(value) for value in (shock["y"], abs(shock["gap"]), shock["expected"]))
    told = f"{moment}: {y}, {gap} {word} the expected {expected}"
    series = "" if run.rows["series"].nunique() == 1 else f"Series {shock['series']}. "
    measured = [(line.name, _mae(lines[0], line)) for line in lines[1:]]
    errors = ", ".join(f"{name} {mae:.3g}" for name, mae in measured if math.isfinite(mae))
    return Figure(
        svg=to_svg(line_chart(times, lines, y_label="value", spans=spans)),
        alt=f"{series}{told}. Mean absolute error in this window: {errors}.",
        caption=f"{series}{told}. Mean absolute error in this window: {errors}.",
    )


def weight_figures(run: Run) -> tuple[Figure, ...]:
    """How the weights of one series went, a figure for each level that the table has."""
    series = run.rows["series"].min()
    weights = run.weights[run.weights["series"] == series]
    of = "" if run.rows["series"].nunique() == 1 else f" of series {series}"
    return tuple(
        _weight_figure(_by_season(run, weights[weights["level"] == level]), f"{caption}{of}.")
        for level, caption in _LEVELS
        if (weights["level"] == level).any()
    )


def regret_figure(run: Run) -> Figure:
    """The running sum of each rule's absolute error minus that of the best single expert."""
    from modelyard.reports.charts import MUTED, PALETTE, Line, cumulative_chart, to_svg

    rows = run.rows
    best = (rows["best_single"] - rows["y"]).abs()
    styles = {"policy": (PALETTE[0], 2.2), "uniform": (MUTED, 1.4), "inverse_score": (PALETTE[1], 1.4)}
    gaps = (
        rows[list(styles)].sub(rows["y"], axis=0).abs().sub(best, axis=0).groupby(rows["target_time"]).sum()
    )
    lines, told = [], []
    for column, (colour, width) in styles.items():
        name = NAMES[column]
        lines.append(Line(name=name, y=gaps[column].to_numpy(float), colour=colour, width_pt=width))
        told.append(f"{name} {amount(gaps[column].sum(), sign='+')}")
    return Figure(
        svg=to_svg(
            cumulative_chart(
                _instants(gaps), lines, y_label="absolute error minus that of the best single expert"
            )
        ),
        alt="Cumulative regret against the best single expert in hindsight at the end: " + ", ".join(told),
        caption="Summed over all leads; below zero is better than the best expert. "
        f"At the end: {', '.join(told)}.",
    )


def amount(value: float, sign: str = "-") -> str:
    """Four digits without an exponent, thousands apart; `sign` "+" shows it for positive numbers too."""
    form = f"{sign},.0f" if 1000 <= abs(value) < 1e12 else f"{sign}.4g"
    return format(value, form).replace("-", "\u2212")


def _mae(truth: Line, forecast: Line) -> float:
    import numpy as np

    gaps = np.abs(truth.y - forecast.y)
    return float(np.nanmean(gaps)) if np.isfinite(gaps).any() else math.nan


def _stretches(marks: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last place of each unbroken run of true marks."""
    runs: list[tuple[int, int]] = []
    for place, mark in enumerate(marks):
        if not mark:
            continue
        if runs and runs[-1][1] == place - 1:
            runs[-1] = (runs[-1][0], place)
        else:
            runs.append((place, place))
    return runs


def _by_season(run: Run, weights: pd.DataFrame) -> pd.DataFrame:
    """Mean weight of each name over each stretch of one period: index its first time, a column a name."""
    period = int(run.backtest["period"])
    table = weights.pivot_table(index="target_time", columns="expert", values="weight", aggfunc="sum")
    table = table.fillna(0.0)
    means = table.groupby([place // period for place in range(len(table))]).mean()
    return means.set_index(table.index[::period])


def _weight_figure(wide: pd.DataFrame, caption: str) -> Figure:
    from modelyard.reports.charts import MUTED, Line, area_chart, to_svg

    plain = {name: str(name).removeprefix("expert:") for name in wide.columns}
    wide = wide.rename(columns={name: short for name, short in plain.items() if short not in plain})
    means = wide.mean().sort_values(ascending=False, kind="stable")
    named = list(means.index[:_LAYERS])
    layers = [Line(name=name, y=wide[name].to_numpy(float)) for name in named]
    rest = list(means.index[_LAYERS:])
    if rest:
        label = f"{len(rest)} other" + ("s" if len(rest) > 1 else "")
        layers.append(Line(name=label, y=wide[rest].sum(axis=1).to_numpy(float), colour=MUTED))
    told = ", ".join(f"{name} {means[name]:.0%}" for name in named if means[name] >= 0.01)
    return Figure(
        svg=to_svg(area_chart(_instants(wide), layers, y_label="weight")),
        alt=f"{caption} Mean weights: {told}.",
        caption=f"{caption} On average: {told}.",
    )


def _instants(frame: pd.DataFrame) -> Times:
    """The frame's index of UTC times without the zone, as charts take them."""
    return frame.index.to_numpy(dtype="datetime64[us]")
