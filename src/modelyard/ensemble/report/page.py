"""The ELPA report: one page from a policy, its backtest and the members of the run.

Nothing is computed anew here except what a picture needs: shocks, running sums, shares. pandas and
matplotlib are loaded by building, not by importing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.core.digests import digest_path
from modelyard.core.errors import PolicyError
from modelyard.ensemble.measuring.hindsight import SWITCHES
from modelyard.ensemble.report.figures import amount, error_bars, regret_figure, shock_figure, weight_figures
from modelyard.ensemble.report.headline import number, row_of, sentence, shown_name
from modelyard.ensemble.report.inputs import FILES, ReportInputs, Run, load_run
from modelyard.ensemble.report.shocks import largest_shocks
from modelyard.reports import page

HINDSIGHT = ("best_single_hindsight", "best_convex_hindsight", "best_switching_hindsight")
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


def build_report(inputs: ReportInputs) -> str:
    """The report as one self-contained HTML page.

    Raises:
        PolicyError: a file is missing, is not readable, or lacks what the report shows.
    """
    try:
        run = load_run(inputs)
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
            subtitle=sentence(run.ranking()),
            facts=_facts(run),
            sections=sections,
            footer="Made by modelyard. This page is complete in itself: it loads nothing and sends nothing.",
        )
    )


def _facts(run: Run) -> tuple[page.Fact, ...]:
    policy = row_of(run.ranking(), "policy") or {}
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


def _short(value: float | None) -> str:
    return page.MISSING if value is None else f"{value:.3g}"


def _results(run: Run) -> page.Section:
    ranking = run.ranking()
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
                shown_name(row),
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
        unranked=_places(ranking, *HINDSIGHT),
        note="What is best in hindsight is known only afterwards, so it is shown and not ranked; the "
        f"switching sequence changes its expert at most {SWITCHES} times a series and lead. "
        "An expert that serves a part of the rows is measured on that part.",
    )
    span = f"{_day(run.backtest.get('from'))} to {_day(run.backtest.get('until'))}"
    figure = error_bars(ranking)
    return page.Section(
        title="Result", text=(f"Measured on {span}.",), figures=(figure,) if figure else (), tables=(table,)
    )


def _places(ranking: Sequence[Mapping[str, Any]], *kinds: str) -> frozenset[int]:
    return frozenset(place for place, row in enumerate(ranking) if row["kind"] in kinds)


def _day(moment: object) -> str:
    return str(moment)[:10] if moment else "the start"


def _by_lead(run: Run) -> page.Section:
    leads = run.backtest["leads"]
    ranking = run.ranking()
    table = page.Table(
        caption="Mean absolute error by lead, in steps ahead; darker is worse",
        columns=(
            page.Column(title="forecaster"),
            *(page.Column(title=f"lead {lead}", best="low", heat=True) for lead in leads),
        ),
        rows=tuple((shown_name(row), *(row.get(f"lead_{lead}") for lead in leads)) for row in ranking),
        strong=_places(ranking, "policy"),
        unranked=_places(ranking, *HINDSIGHT),
    )
    return page.Section(title="By lead", tables=(table,))


def _shocks(run: Run) -> page.Section:
    rows = run.rows[run.rows["lead"] == run.lead]
    found = largest_shocks(rows, int(run.backtest["period"]))
    figures = tuple(shock_figure(run, rows, shock) for _, shock in found.iterrows())
    several = "" if rows["series"].nunique() == 1 else " of all series"
    text = (
        f"The {len(figures)} largest gaps{several} between the truth and what its place in the week leads "
        f"one to expect, with the forecasts made {run.lead} steps before. Mutants are shaded."
    )
    if not figures:
        text = "The backtest is too short to show a shock."
    return page.Section(title="Largest shocks", text=(text,), figures=figures)


def _weights(run: Run) -> page.Section:
    text = (
        "Weights are learnt online, each from errors that were known when the forecast was made. Shown are "
        f"those of forecasts {run.lead} steps ahead, averaged over every {run.backtest['period']} steps."
    )
    return page.Section(title="Weights over time", text=(text,), figures=weight_figures(run))


def _regret(run: Run) -> page.Section:
    regret = run.backtest.get("regret", {})
    realised, bound = number(regret.get("realised")), number(regret.get("bound"))
    text = ["The sum of how much worse each rule was than the one expert that proved best, row after row."]
    if realised is not None and bound is not None:
        text.append(
            f"The backtest reports a regret of {amount(realised)} under a working bound of {amount(bound)}."
        )
    return page.Section(title="Cumulative regret", text=tuple(text), figures=(regret_figure(run),))


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
                number(member.get("train_s")),
                number(member.get("predict_s")),
                number(member.get("cpu_s")),
                member.get("excluded") or reasons.get(member["name"]) or "",
            )
            for member in listed
        ),
    )
    cpu = sum(number(member.get("cpu_s")) or 0.0 for member in listed)
    out = sum(bool(row[-1]) for row in table.rows)
    took = f", {cpu:,.0f} CPU seconds in all" if cpu else ""
    return page.Section(
        title="Members", text=(f"{len(listed)} models, {out} excluded{took}.",), tables=(table,)
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
