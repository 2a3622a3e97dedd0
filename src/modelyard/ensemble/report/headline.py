"""The headline of a backtest: one row for every forecaster over all leads, and the result in a sentence.

Plain JSON in, plain rows out; it knows neither pages nor pictures, so the command line prints the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

RIVALS = ("best_single_hindsight", "inverse_score", "uniform")
NAMES = {
    "policy": "the policy",
    "uniform": "uniform mean",
    "inverse_score": "static inverse score",
    "best_single_hindsight": "best single in hindsight",
    "best_convex_hindsight": "best convex mixture in hindsight",
    "best_switching_hindsight": "best switching sequence in hindsight",
}
UNNAMED = ("best_convex", "best_switching")
_BLANK = ("mae", "mase", "mae_calm", "mae_mutant", "n", "served_share")


def headline(backtest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per expert and rule, lowest mean absolute error over all leads first.

    Args:
        backtest: the content of backtest.json.

    Returns:
        Rows of `name, kind, group, mae, mase, mae_calm, mae_mutant, n, served_share` over all leads, and
        `lead_1 ..` with the mean absolute error of each lead that the table has; NaN and infinities are
        None, and a row without an error comes last.
    """
    leads = sorted({entry["lead"] for entry in backtest["table"] if entry["lead"] is not None})
    blank = dict.fromkeys((*_BLANK, *(f"lead_{lead}" for lead in leads)))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in backtest["table"]:
        who = {"name": entry["name"], "kind": entry["kind"], "group": entry.get("group")}
        found.setdefault((entry["kind"], entry["name"]), who | blank).update(_measured(entry))
    return sorted(found.values(), key=lambda row: (row["mae"] is None, row["mae"] or 0.0, row["name"]))


def number(value: object) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def row_of(ranking: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """The best row of a kind, or None."""
    return next((row for row in ranking if row["kind"] == kind), None)


def shown_name(row: Mapping[str, Any]) -> str:
    """What a row is called in tables: rules by their plain names, experts by their own."""
    plain = NAMES.get(row["kind"])
    if plain is None:
        return str(row["name"])
    return plain if row["name"] in (row["kind"], plain, *NAMES, *UNNAMED) else f"{plain}: {row['name']}"


def sentence(ranking: Sequence[Mapping[str, Any]]) -> str:
    """The result, told with its sign whichever way it went."""
    policy = row_of(ranking, "policy")
    if policy is None or policy["mae"] is None:
        return "The policy made no forecast that could be measured."
    parts = []
    for kind in RIVALS:
        rival = row_of(ranking, kind)
        if rival is not None and rival["mae"]:
            change = 100 * (policy["mae"] / rival["mae"] - 1)
            parts.append(f"{abs(change):.1f} % {'below' if change < 0 else 'above'} {_with_article(rival)}")
    against = f": {_joined(parts)}" if parts else ""
    return f"The policy's mean absolute error over the backtest is {policy['mae']:.4g}{against}."


def _measured(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What one entry of the table says of its row."""
    if entry["lead"] is not None:
        return {f"lead_{entry['lead']}": number(entry.get("mae"))} if entry["rows"] == "all" else {}
    if entry["rows"] != "all":
        return {f"mae_{entry['rows']}": number(entry.get("mae"))}
    return {
        "mae": number(entry.get("mae")),
        "mase": number(entry.get("mase")),
        "n": entry.get("n"),
        "served_share": number(entry.get("served_share")),
    }


def _with_article(row: Mapping[str, Any]) -> str:
    if row["kind"] == "best_single_hindsight":
        inner = shown_name(row).partition(": ")[2]
        return "the best single expert in hindsight" + (f" ({inner})" if inner else "")
    return {"uniform": "the uniform mean", "inverse_score": "static inverse-score weights"}[row["kind"]]


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
