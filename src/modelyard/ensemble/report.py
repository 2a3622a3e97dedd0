"""The ELPA report: one page from a policy, its backtest and the members of the run.

    python -m modelyard.ensemble.report SPEC.json

with SPEC `{"policy": path, "backtest": folder, "members": path, "title": text, "out": path}`. The folder
holds backtest.json, backtest.parquet and weights.parquet. Nothing is computed anew here except what a
picture needs: shocks, running sums, shares. pandas and matplotlib are loaded by building, not by importing.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.core.digests import digest_path
from modelyard.core.errors import DocumentError, ModelyardError, PolicyError
from modelyard.core.faults import Fault, Faults, Section
from modelyard.core.files import read_json, write_whole
from modelyard.reports import page

if TYPE_CHECKING:
    import pandas as pd

    from modelyard.reports.charts import Line, Times

FILES = ("backtest.json", "backtest.parquet", "weights.parquet")
_SCHEMA = "modelyard.backtest/1"
_RIVALS = ("best_single_hindsight", "inverse_score", "uniform")
_NAMES = {
    "policy": "the policy",
    "uniform": "uniform mean",
    "inverse_score": "static inverse score",
    "best_single_hindsight": "best single in hindsight",
}
_SHOCKS = 3
_WINDOW_STEPS = 36
_LAYERS = 6
_BARS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """The files of one ensemble run and what the report is called.

    `members` is a JSON list of `{name, group, status, attempts, train_s, predict_s, cpu_s, excluded}`, of
    which only `name` is required; None when the models were trained elsewhere. `command` reproduces the page.
    """

    policy: Path
    backtest: Path
    title: str
    members: Path | None = None
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the files hold; `lead` is the one that the pictures show, and the only one of `weights`."""

    policy: Mapping[str, Any]
    backtest: Mapping[str, Any]
    rows: pd.DataFrame
    weights: pd.DataFrame
    members: Sequence[Mapping[str, Any]]
    lead: int

    def ranking(self) -> list[dict[str, Any]]:
        """The headline rows, best first."""
        return headline(self.backtest)

    def best(self, group: str) -> str | None:
        """The expert of a group with the lowest error over the backtest, or None."""
        named = [row["name"] for row in self.ranking() if row["kind"] == "expert" and row["group"] == group]
        served = [name for name in named if f"expert:{name}" in self.rows.columns]
        return served[0] if served else None


def headline(backtest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per expert and rule over all leads, lowest mean absolute error first.

    Args:
        backtest: the content of backtest.json.

    Returns:
        Rows of `name, kind, group, mae, mase, mae_calm, mae_mutant, n, served_share`; NaN and infinities
        are None, and a row without an error comes last.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in backtest["table"]:
        if entry["lead"] is not None:
            continue
        row = found.setdefault(
            (entry["kind"], entry["name"]),
            {"name": entry["name"], "kind": entry["kind"], "group": entry.get("group")},
        )
        if entry["rows"] == "all":
            row.update({key: _number(entry.get(key)) for key in ("mae", "mase", "served_share")})
            row["n"] = entry.get("n")
        else:
            row[f"mae_{entry['rows']}"] = _number(entry.get("mae"))
    blank = dict.fromkeys(("mae", "mase", "mae_calm", "mae_mutant", "n", "served_share"))
    rows = [blank | row for row in found.values()]
    return sorted(rows, key=lambda row: (row["mae"] is None, row["mae"] or 0.0, row["name"]))


def build_report(inputs: ReportInputs) -> str:
    """The report as one self-contained HTML page.

    Raises:
        PolicyError: a file is missing, is not readable, or lacks what the report shows.
    """
    run = _load(inputs)
    try:
        sections = (
            _results(run),
            _by_lead(run),
            _shocks(run),
            _weights(run),
            _regret(run),
            *([_members(run)] if run.members or run.backtest.get("excluded") else []),
            _method(),
            _settings(run),
            _provenance(inputs, run),
        )
    except KeyError as error:
        raise PolicyError(f"{inputs.backtest}: the backtest lacks {error}; run the backtest again") from error
    return page.render(
        page.Page(
            title=inputs.title,
            subtitle=_sentence(run),
            facts=_facts(run),
            sections=sections,
            footer="Made by modelyard. This page is complete in itself: it loads nothing and sends nothing.",
        )
    )


def shocks(rows: pd.DataFrame, period: int, count: int = _SHOCKS) -> pd.DataFrame:
    """The largest gaps between the truth and its seasonal expectation, in windows that do not overlap.

    The expectation is the median of the truth at the same place in the week (seven periods), or in the
    period when there are fewer than four weeks. It uses the whole span: it describes, it does not forecast.

    Args:
        rows: the backtest's rows of one lead, `series, target_time, y`.
        period: steps in a season.
        count: how many at most.

    Returns:
        `series, target_time, y, expected, gap`, largest absolute gap first.
    """
    import pandas as pd

    found = []
    for _, one in rows.dropna(subset=["y"]).sort_values("target_time").groupby("series", sort=True):
        if len(one) < 2:
            continue
        step = one["target_time"].diff().median()
        place = ((one["target_time"] - one["target_time"].iloc[0]) / step).round().astype("int64")
        cycle = 7 * period if len(one) >= 4 * 7 * period else period
        expected = one["y"].groupby(place % cycle).transform("median")
        found.append(one.assign(expected=expected, gap=one["y"] - expected, place=place))
    if not found:
        return rows.iloc[:0].assign(expected=0.0, gap=0.0)[["series", "target_time", "y", "expected", "gap"]]
    ranked = pd.concat(found).sort_values("gap", key=abs, ascending=False, kind="stable")
    chosen: list[Any] = []
    for row in ranked.itertuples():
        near = (
            kept.series == row.series and abs(kept.place - row.place) <= 2 * _WINDOW_STEPS for kept in chosen
        )
        if not any(near):
            chosen.append(row)
        if len(chosen) == count:
            break
    return ranked.loc[[row.Index for row in chosen], ["series", "target_time", "y", "expected", "gap"]]


def main(argv: Sequence[str]) -> int:
    """Write the report that a spec asks for; 0, or 1 with the reason on stderr."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m modelyard.ensemble.report SPEC.json\n")
        return 2
    try:
        inputs, out = _read_spec(Path(argv[0]))
        write_whole(out, build_report(inputs))
    except ModelyardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{out}\n")
    return 0


def _read_spec(path: Path) -> tuple[ReportInputs, Path]:
    faults = Faults(file=str(path))
    try:
        section = Section(json.loads(path.read_bytes()), faults=faults)
    except (OSError, ValueError) as error:
        problem = f"cannot be read as JSON ({error})"
        raise DocumentError(
            [Fault(file=str(path), key="", value="", problem=problem, remedy="write a JSON spec")]
        ) from error
    folder = path.parent
    members = section.optional_text("members")
    inputs = ReportInputs(
        policy=folder / section.text("policy"),
        backtest=folder / section.text("backtest"),
        members=folder / members if members else None,
        title=section.text("title", "Ensemble report"),
        command=shlex.join(["python", "-m", "modelyard.ensemble.report", str(path)]),
    )
    out = folder / section.text("out")
    section.close()
    faults.raise_if_any()
    return inputs, out


def _load(inputs: ReportInputs) -> Run:
    import pandas as pd

    backtest = _json(inputs.backtest / "backtest.json")
    if backtest.get("schema") != _SCHEMA:
        raise PolicyError(
            f"{inputs.backtest / 'backtest.json'}: is {backtest.get('schema')!r}, but {_SCHEMA} is required"
        )
    lead = max(backtest["leads"])
    frames = []
    for name, kept in ((FILES[1], None), (FILES[2], [("lead", "==", lead)])):
        try:
            frames.append(pd.read_parquet(inputs.backtest / name, partitioning=None, filters=kept))
        except (OSError, ValueError) as error:
            raise PolicyError(f"{inputs.backtest / name}: cannot be read: {error}") from error
    rows, weights = frames
    return Run(
        policy=_json(inputs.policy),
        backtest=backtest,
        rows=rows.sort_values(["series", "lead", "target_time"], ignore_index=True),
        weights=weights,
        members=_json(inputs.members) if inputs.members else [],
        lead=lead,
    )


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: cannot be read as JSON: {error}") from error


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _row(run: Run, kind: str) -> dict[str, Any] | None:
    return next((row for row in run.ranking() if row["kind"] == kind), None)


def _shown_name(row: Mapping[str, Any]) -> str:
    plain = _NAMES.get(row["kind"])
    if plain is None:
        return str(row["name"])
    return plain if row["name"] in (row["kind"], plain, *_NAMES) else f"{plain}: {row['name']}"


def _sentence(run: Run) -> str:
    """The result, told with its sign whichever way it went."""
    policy = _row(run, "policy")
    if policy is None or policy["mae"] is None:
        return "The policy made no forecast that could be measured."
    parts = []
    for kind in _RIVALS:
        rival = _row(run, kind)
        if rival is not None and rival["mae"]:
            change = 100 * (policy["mae"] / rival["mae"] - 1)
            parts.append(f"{abs(change):.1f} % {'below' if change < 0 else 'above'} {_article(rival)}")
    against = f": {_joined(parts)}" if parts else ""
    return f"The policy's mean absolute error over the backtest is {policy['mae']:.4g}{against}."


def _article(row: Mapping[str, Any]) -> str:
    if row["kind"] == "best_single_hindsight":
        inner = _shown_name(row).partition(": ")[2]
        return "the best single expert in hindsight" + (f" ({inner})" if inner else "")
    return {"uniform": "the uniform mean", "inverse_score": "static inverse-score weights"}[row["kind"]]


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _facts(run: Run) -> tuple[page.Fact, ...]:
    policy = _row(run, "policy") or {}
    counts = run.backtest["rows"]
    experts = [row for row in run.ranking() if row["kind"] == "expert"]
    facts = [
        page.Fact(value=_short(policy.get("mae")), label="mean absolute error of the policy"),
        page.Fact(value=_short(policy.get("mase")), label="MASE (1 is the seasonal naive forecast)"),
        page.Fact(value=f"{len(experts)}", label="experts in the pool"),
        page.Fact(value=f"{counts['all']:,}", label="forecasts measured in the backtest"),
        page.Fact(
            value=f"{100 * counts['mutant'] / max(counts['all'], 1):.1f} %", label="of them in mutants"
        ),
    ]
    return tuple(facts)


def _amount(value: float, sign: str = "-") -> str:
    """Four digits without an exponent, thousands apart; `sign` "+" shows it for positive numbers too."""
    form = f"{sign},.0f" if 1000 <= abs(value) < 1e12 else f"{sign}.4g"
    return format(value, form).replace("-", "\u2212")


def _short(value: float | None) -> str:
    return page.MISSING if value is None else f"{value:.3g}"


def _results(run: Run) -> page.Section:
    from modelyard.reports.charts import Bar, bar_chart, to_svg

    ranking = run.ranking()
    bars = [
        Bar(
            name=_shown_name(row), value=row["mae"], label=f"{row['mae']:.3g}", strong=row["kind"] == "policy"
        )
        for row in ranking
        if row["mae"] is not None and row["kind"] != "best_single_hindsight"  # it stands there as an expert
    ]
    bars = [bar for place, bar in enumerate(bars) if place < _BARS or bar.strong]
    low = "lowest among those that forecast before the fact"
    table = page.Table(
        caption="Every expert and rule on the same rows",
        columns=(
            page.Column(title="forecaster"),
            page.Column(title="group"),
            page.Column(title="MAE", best="low", hint=low),
            page.Column(title="MASE", best="low", decimals=3, hint=low),
            page.Column(title="MAE, calm", best="low", hint=low),
            page.Column(title="MAE, mutants", best="low", hint=low),
            page.Column(title="served", decimals=1, unit=" %"),
        ),
        rows=tuple(
            (
                _shown_name(row),
                row["group"] or "rule",
                row["mae"],
                row["mase"],
                row["mae_calm"],
                row["mae_mutant"],
                None if row["served_share"] is None else 100 * row["served_share"],
            )
            for row in ranking
        ),
        strong=_places(ranking, "policy"),
        unranked=_places(ranking, "best_single_hindsight"),
        note="The best single expert in hindsight is known only afterwards, so it is shown and not ranked. "
        "An expert that serves a part of the rows is measured on that part.",
    )
    span = f"{_day(run.backtest.get('from'))} to {_day(run.backtest.get('until'))}"
    figure = page.Figure(
        svg=to_svg(bar_chart(bars, x_label="mean absolute error over all leads")),
        alt="Bars of mean absolute error, best first: "
        + ", ".join(f"{bar.name} {bar.label}" for bar in bars),
    )
    return page.Section(
        title="Result", text=(f"Measured on {span}.",), figures=(figure,) if bars else (), tables=(table,)
    )


def _places(ranking: Sequence[Mapping[str, Any]], kind: str) -> frozenset[int]:
    return frozenset(place for place, row in enumerate(ranking) if row["kind"] == kind)


def _day(moment: object) -> str:
    return str(moment)[:10] if moment else "the start"


def _by_lead(run: Run) -> page.Section:
    leads = run.backtest["leads"]
    errors = {
        (row["kind"], row["name"], row["lead"]): _number(row["mae"])
        for row in run.backtest["table"]
        if row["rows"] == "all" and row["lead"] is not None
    }
    ranking = run.ranking()
    table = page.Table(
        caption="Mean absolute error by lead, in steps ahead; darker is worse",
        columns=(
            page.Column(title="forecaster"),
            *(page.Column(title=f"lead {lead}", best="low", heat=True) for lead in leads),
        ),
        rows=tuple(
            (_shown_name(row), *(errors.get((row["kind"], row["name"], lead)) for lead in leads))
            for row in ranking
        ),
        strong=_places(ranking, "policy"),
        unranked=_places(ranking, "best_single_hindsight"),
    )
    return page.Section(title="By lead", tables=(table,))


def _shocks(run: Run) -> page.Section:
    rows = run.rows[run.rows["lead"] == run.lead]
    found = shocks(rows, int(run.backtest["period"]))
    figures = tuple(_shock_figure(run, rows, shock) for _, shock in found.iterrows())
    several = "" if rows["series"].nunique() == 1 else " of all series"
    text = (
        f"The {len(figures)} largest gaps{several} between the truth and what its place in the week leads "
        f"one to expect, with the forecasts made {run.lead} steps before. Mutants are shaded."
    )
    if not figures:
        text = "The backtest is too short to show a shock."
    return page.Section(title="Largest shocks", text=(text,), figures=figures)


def _shock_figure(run: Run, rows: pd.DataFrame, shock: pd.Series[Any]) -> page.Figure:
    from modelyard.reports.charts import INK, PALETTE, Line, Span, line_chart, to_svg

    one = rows[rows["series"] == shock["series"]].reset_index(drop=True)
    centre = int((one["target_time"] - shock["target_time"]).abs().idxmin())
    part = one.iloc[max(centre - _WINDOW_STEPS, 0) : centre + _WINDOW_STEPS + 1]
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
    y, gap, expected = (_amount(value) for value in (shock["y"], abs(shock["gap"]), shock["expected"]))
    told = f"{moment}: {y}, {gap} {word} the expected {expected}"
    series = "" if run.rows["series"].nunique() == 1 else f"Series {shock['series']}. "
    measured = [(line.name, _mae(lines[0], line)) for line in lines[1:]]
    errors = ", ".join(f"{name} {mae:.3g}" for name, mae in measured if math.isfinite(mae))
    return page.Figure(
        svg=to_svg(line_chart(times, lines, y_label="value", spans=spans)),
        alt=f"{series}{told}. Mean absolute error in this window: {errors}.",
        caption=f"{series}{told}. Mean absolute error in this window: {errors}.",
    )


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


def _weights(run: Run) -> page.Section:
    series = run.rows["series"].min()
    weights = run.weights[run.weights["series"] == series]
    of = "" if run.rows["series"].nunique() == 1 else f" of series {series}"
    levels = (
        ("expert", "How much each expert counts in the policy's final forecast"),
        ("meta", "How the meta-aggregator divides its trust among mixes, route and experts"),
    )
    figures = tuple(
        _weight_figure(_by_season(run, weights[weights["level"] == level]), f"{caption}{of}.")
        for level, caption in levels
        if (weights["level"] == level).any()
    )
    text = (
        "Weights are learnt online, each from errors that were known when the forecast was made. Shown are "
        f"those of forecasts {run.lead} steps ahead, averaged over every {run.backtest['period']} steps."
    )
    return page.Section(title="Weights over time", text=(text,), figures=figures)


def _by_season(run: Run, weights: pd.DataFrame) -> pd.DataFrame:
    """Mean weight of each name over each stretch of one period: index its first time, a column a name."""
    period = int(run.backtest["period"])
    table = weights.pivot_table(index="target_time", columns="expert", values="weight", aggfunc="sum")
    table = table.fillna(0.0)
    means = table.groupby([place // period for place in range(len(table))]).mean()
    return means.set_index(table.index[::period])


def _weight_figure(wide: pd.DataFrame, caption: str) -> page.Figure:
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
    return page.Figure(
        svg=to_svg(area_chart(_instants(wide), layers, y_label="weight")),
        alt=f"{caption} Mean weights: {told}.",
        caption=f"{caption} On average: {told}.",
    )


def _regret(run: Run) -> page.Section:
    from modelyard.reports.charts import MUTED, PALETTE, Line, cumulative_chart, to_svg

    rows = run.rows
    best = (rows["best_single"] - rows["y"]).abs()
    styles = {"policy": (PALETTE[0], 2.2), "uniform": (MUTED, 1.4), "inverse_score": (PALETTE[1], 1.4)}
    gaps = (
        rows[list(styles)].sub(rows["y"], axis=0).abs().sub(best, axis=0).groupby(rows["target_time"]).sum()
    )
    lines, told = [], []
    for column, (colour, width) in styles.items():
        name = _NAMES[column]
        lines.append(Line(name=name, y=gaps[column].to_numpy(float), colour=colour, width_pt=width))
        told.append(f"{name} {_amount(gaps[column].sum(), sign='+')}")
    figure = page.Figure(
        svg=to_svg(
            cumulative_chart(
                _instants(gaps), lines, y_label="absolute error minus that of the best single expert"
            )
        ),
        alt="Cumulative regret against the best single expert in hindsight at the end: " + ", ".join(told),
        caption="Summed over all leads; below zero is better than the best expert. "
        f"At the end: {', '.join(told)}.",
    )
    regret = run.backtest.get("regret", {})
    realised, bound = _number(regret.get("realised")), _number(regret.get("bound"))
    text = ["The sum of how much worse each rule was than the one expert that proved best, row after row."]
    if realised is not None and bound is not None:
        text.append(
            f"The backtest reports a regret of {_amount(realised)} under a working bound of {_amount(bound)}."
        )
    return page.Section(title="Cumulative regret", text=tuple(text), figures=(figure,))


def _instants(frame: pd.DataFrame) -> Times:
    """The frame's index of UTC times without the zone, as charts take them."""
    return frame.index.to_numpy(dtype="datetime64[us]")


def _members(run: Run) -> page.Section:
    reasons = {row["name"]: row.get("reason") for row in run.backtest.get("excluded", [])}
    listed = [*run.members]
    known = {member["name"] for member in listed}
    listed += [{"name": name} for name in reasons if name not in known]
    table = page.Table(
        caption="What was trained, what it took, and why a member does not forecast",
        columns=(
            page.Column(title="model"),
            page.Column(title="group"),
            page.Column(title="status"),
            page.Column(title="attempts"),
            page.Column(title="train", decimals=1, unit=" s"),
            page.Column(title="predict", decimals=1, unit=" s"),
            page.Column(title="CPU", decimals=1, unit=" s"),
            page.Column(title="excluded because"),
        ),
        rows=tuple(
            (
                member["name"],
                member.get("group"),
                member.get("status"),
                member.get("attempts"),
                _number(member.get("train_s")),
                _number(member.get("predict_s")),
                _number(member.get("cpu_s")),
                member.get("excluded") or reasons.get(member["name"]) or "",
            )
            for member in listed
        ),
    )
    cpu = sum(_number(member.get("cpu_s")) or 0.0 for member in listed)
    out = sum(bool(row[-1]) for row in table.rows)
    took = f", {cpu:,.0f} CPU seconds in all" if cpu else ""
    return page.Section(
        title="Members", text=(f"{len(listed)} models, {out} excluded{took}.",), tables=(table,)
    )


_TERMS = (
    (
        "online, offline",
        "An online expert gets the newest data and serves short leads; an offline expert is issued rarely, "
        "with long leads. For target t at lead h the ensemble takes an expert's newest forecast issued at "
        "t \u2212 h or before.",
    ),
    (
        "MAE, MASE",
        "Mean absolute error; the same divided by that of the seasonal naive forecast (Hyndman & Koehler "
        "2006).",
    ),
    (
        "mutant",
        "A sudden change: observed when a standardised residual exceeds its conformal quantile, together "
        "with the dirty interval after it. The same rows for everyone. Calm rows are the others.",
    ),
    ("uniform mean", "The average of the experts that serve the row."),
    ("static inverse score", "Weights proportional to 1 / discounted error, fixed at the end of validation."),
    (
        "best single in hindsight",
        "The one expert with the lowest error over the whole backtest among those that serve the most rows.",
    ),
    (
        "the policy",
        "Online mix, calibrated offline mix, the hard route and single experts, aggregated by a second rule. "
        "It goes on learning during the backtest, each error only from the time its truth is known.",
    ),
)


def _method() -> page.Section:
    text = (
        "ELPA joins online and offline forecasters from their real validation errors. The formulas of its "
        "paper are not public text; the definitions here are ours, from the literature.",
    )
    return page.Section(title="Method", text=text, terms=_TERMS)


def _settings(run: Run) -> page.Section:
    settings = dict(run.backtest.get("method", {}))
    for key in ("beta", "dirty_interval", "amplitude_window", "mutant_epsilon"):
        if key in run.policy:
            settings[key] = run.policy[key]
    terms = tuple((key, _plain(value)) for key, value in settings.items())
    return page.Section(title="Settings", text=("What the policy was built with.",), terms=terms)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _provenance(inputs: ReportInputs, run: Run) -> page.Section:
    files = [inputs.policy, *(inputs.backtest / name for name in FILES)]
    if inputs.members is not None:
        files.append(inputs.members)
    terms = [(path.name, digest_path(path)) for path in files]
    terms += [(f"learnt from {name}", _plain(value)) for name, value in _digests(run.policy)]
    if run.policy.get("created_at"):
        terms.append(("policy made at", str(run.policy["created_at"])))
    if inputs.command:
        terms.append(("this page again", inputs.command))
    return page.Section(title="Provenance", text=("What this page was made from.",), terms=tuple(terms))


def _digests(policy: Mapping[str, Any]) -> list[tuple[str, object]]:
    """The digests that the policy carries, as names with values; groups of them are laid flat."""
    found = policy.get("digests")
    laid: list[tuple[str, object]] = []
    for name, value in found.items() if isinstance(found, Mapping) else ():
        laid += value.items() if isinstance(value, Mapping) else [(name, value)]
    return laid


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
