"""Holding a policy against the period after its validation, and against what one would do instead.

Every origin from the end of validation on: the policy forecasts with what is known, then learns with
the delay. Beside it, on the same rows: every expert, their uniform mean, the mean by inverse scores
frozen at the end of validation (as the public skill would), and the best single expert in hindsight.
A row is (series, target, lead) with a truth and at least one forecast. Tables out; no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Bools, Floats
from modelyard.ensemble.measuring.certificate import bound_of
from modelyard.ensemble.measuring.hindsight import best_convex, best_switching
from modelyard.ensemble.measuring.peers import Mixer, peer_mixers, roll_peer
from modelyard.ensemble.policies.policy import Policy, finite
from modelyard.ensemble.runtime.engine import Issued
from modelyard.ensemble.runtime.matrix import AlignedMatrix, SeriesMatrix, build_matrix
from modelyard.ensemble.runtime.mutants import dirty_rows, shocks
from modelyard.ensemble.runtime.replay import replay

SCHEMA = "modelyard.backtest/1"
HINDSIGHT = ("best_convex", "best_switching")
_LOSSES = (
    "policy",
    "uniform",
    "inverse_score",
    "best_single_hindsight",
    "best_convex_hindsight",
    "best_switching_hindsight",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Backtest:
    """The three outputs."""

    summary: dict[str, Any]  # backtest.json
    rows: pd.DataFrame  # backtest.parquet
    weights: pd.DataFrame  # weights.parquet


def backtest_policy(
    policy: Policy, predictions: pd.DataFrame, truth: pd.DataFrame, *, against: Sequence[str] = ()
) -> Backtest:
    """Roll the policy through every target after its validation.

    Args:
        policy: Learnt by `integrate_tables`.
        predictions: The same table, reaching further.
        truth: The same.
        against: Other libraries to run beside it, of `peers.PEERS`.

    Raises:
        PolicyError: The policy cannot run, there is no row after its validation, or a library is missing.
        TableError: The tables are inconsistent.
    """
    if policy.horizon is None or policy.step_s is None or policy.validation_until is None:
        raise PolicyError(
            "the policy was integrated from errors alone and cannot be run; integrate from tables"
        )
    groups = _groups(policy)
    matrix = build_matrix(predictions, truth, groups=groups, horizon=policy.horizon, step_s=policy.step_s)
    matrix = matrix.fresh(policy.max_staleness_s)
    cut = pd.Timestamp(policy.validation_until)
    mixers = {name: make for peer in against for name, make in peer_mixers(peer).items()}
    runs = [
        _run_series(policy, matrix, part, cut=matrix.index_of(part, cut), mixers=mixers)
        for part in matrix.parts
    ]
    rows = pd.concat([run[0] for run in runs], ignore_index=True)
    if rows.empty:
        end = max(matrix.times(part)[-1] for part in matrix.parts).isoformat()
        raise PolicyError(
            f"no row after validation_until = {policy.validation_until} has a truth and a forecast; "
            f"the truth ends at {end}: nothing to backtest"
        )
    weights = pd.concat([run[1] for run in runs], ignore_index=True)
    best = _best_single(rows, policy.experts)
    rows.insert(list(rows.columns).index("inverse_score") + 1, "best_single", rows[f"expert:{best}"])
    add_hindsight(rows, policy.experts)
    summary = _summary(policy, rows, best)
    return Backtest(summary=summary, rows=rows.drop(columns="scale"), weights=weights)


def backtest_digest(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The `backtest` field of a policy file: the losses and regrets of a summary."""
    overall = {r["kind"]: r["mae"] for r in summary["table"] if r["rows"] == "all" and r["lead"] is None}
    return {
        "protocol": "prequential from validation_until on, learning with the delay",
        "folds": 1,
        "loss": {kind: overall[kind] for kind in _LOSSES},
        "regret_bound": summary["regret"]["bound"],
        "regret_realised": summary["regret"]["realised"],
    }


def _run_series(
    policy: Policy,
    matrix: AlignedMatrix,
    part: SeriesMatrix,
    *,
    cut: int,
    mixers: Mapping[str, Callable[[int], Mixer]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    stop, leads = len(part.truth_t), matrix.horizon
    policy_th = np.full((stop, leads), np.nan)
    members = policy.engine(part.series).setup.members
    meta_thm = np.zeros((stop, leads, len(members)))
    expert_thk = np.zeros((stop, leads, len(policy.experts)))
    for origin, issued in _roll(policy, part, cut):
        lead = np.arange(min(leads, stop - origin - 1))
        at = (origin + 1 + lead, lead)
        policy_th[at] = issued.forecast_h[lead]
        meta_thm[at] = issued.meta_hm[lead]
        expert_thk[at] = issued.expert_weights()[lead]
    use = np.isfinite(policy_th) & np.isfinite(part.truth_t)[:, None]
    keys = _keys(matrix, part, use)
    rows = _rows(policy, part, use, policy_th)
    for name, make in mixers.items():
        beside = [roll_peer(make, part.forecast_thk[:, h], part.truth_t, h + 1) for h in range(leads)]
        rows[f"peer:{name}"] = np.stack(beside, axis=1)[use]
    weights = [
        _weights(keys, policy.experts, expert_thk[use], "expert"),
        _weights(keys, members, meta_thm[use], "meta"),
    ]
    return pd.concat([keys, rows], axis=1), pd.concat(weights, ignore_index=True)


def _roll(policy: Policy, part: SeriesMatrix, cut: int) -> Iterator[tuple[int, Issued]]:
    """Issue at the last validated origin, whose truth the policy has learnt, and at all after it."""
    engine = policy.engine(part.series)
    yield cut - 1, engine.issue(part.origin(cut - 1))
    yield from replay(engine, part, cut, len(part.truth_t) - 1)


def _keys(matrix: AlignedMatrix, part: SeriesMatrix, use: Bools) -> pd.DataFrame:
    target, lead = np.nonzero(use)
    return pd.DataFrame(
        {
            "series": part.series,
            "target_time": matrix.times(part)[target],
            "lead": (lead + 1).astype(np.int64),
        }
    )


def _rows(policy: Policy, part: SeriesMatrix, use: Bools, policy_th: Floats) -> pd.DataFrame:
    own = policy.series[part.series]
    forecast_rk = part.forecast_thk[use]
    served = np.isfinite(forecast_rk).astype(float)
    filled = np.where(served > 0, forecast_rk, 0.0)
    static = np.array([own.static_weights.get(name, 0.0) for name in policy.experts])
    shock_t = shocks(part.truth_t, own.limits)
    leads = use.shape[1]
    mutant = dirty_rows(shock_t, leads=leads, dirty_interval=policy.dirty_interval)
    target, _ = np.nonzero(use)
    columns: dict[str, Any] = {
        "y": part.truth_t[target],
        "policy": policy_th[use],
        "uniform": filled.sum(axis=1) / served.sum(axis=1),
        "inverse_score": _weighted(filled, served * static),
        "mutant": shock_t[target],
        "dirty": mutant[use],
    }
    for k, name in enumerate(policy.experts):
        columns[f"expert:{name}"] = forecast_rk[:, k]
    columns["scale"] = own.scale if own.scale is not None else math.nan
    return pd.DataFrame(columns)


def add_hindsight(rows: pd.DataFrame, experts: Sequence[str]) -> None:
    """Add the best convex mixture and switching sequence of every series and lead, knowing its truth."""
    forecast_nk = rows[[f"expert:{name}" for name in experts]].to_numpy(dtype=float)
    y = rows["y"].to_numpy(dtype=float)
    found = {kind: np.full(len(rows), np.nan) for kind in HINDSIGHT}
    for at in rows.groupby(["series", "lead"], sort=False).indices.values():
        found["best_convex"][at] = best_convex(forecast_nk[at], y[at])
        found["best_switching"][at] = best_switching(forecast_nk[at], y[at])
    for kind, values in found.items():
        rows[kind] = values


def _weighted(filled: Floats, weight: Floats) -> Floats:
    total = weight.sum(axis=1)
    return np.where(total > 0, (filled * weight).sum(axis=1) / np.where(total > 0, total, 1.0), np.nan)


def _weights(keys: pd.DataFrame, names: tuple[str, ...], weight: Floats, level: str) -> pd.DataFrame:
    repeated = keys.loc[keys.index.repeat(len(names))].reset_index(drop=True)
    return repeated.assign(
        expert=np.tile(np.array(names, dtype=object), len(keys)),
        weight=weight.ravel(),
        level=level,
    )


def _best_single(rows: pd.DataFrame, experts: tuple[str, ...]) -> str:
    """The least mean error over all rows among the experts that serve most of them."""
    errors = {name: (rows[f"expert:{name}"] - rows["y"]).abs() for name in experts}
    most = max(int(error.notna().sum()) for error in errors.values())
    full = [name for name, error in errors.items() if int(error.notna().sum()) == most]
    return min(full, key=lambda name: float(errors[name].mean()))


def _summary(policy: Policy, rows: pd.DataFrame, best: str) -> dict[str, Any]:
    dirty, lead = rows["dirty"].to_numpy(), rows["lead"].to_numpy()
    masks = {"all": np.ones(len(rows), dtype=bool), "calm": ~dirty, "mutant": dirty}
    leads = list(range(1, (policy.horizon or 0) + 1))
    table = []
    for column, who in _contestants(policy, rows, best).items():
        table += [
            {**who, "rows": name, "lead": None, **_loss(rows[mask], column)} for name, mask in masks.items()
        ]
        table += [{**who, "rows": "all", "lead": h, **_loss(rows[lead == h], column)} for h in leads]
    return {
        "schema": SCHEMA,
        "leads": leads,
        "period": policy.period,
        "rows": {name: int(mask.sum()) for name, mask in masks.items()},
        "table": table,
        "regret": _regret(policy, rows, leads),
        "excluded": [{"name": e.name, "reason": e.reason, "rows": e.rows} for e in policy.excluded],
        "method": {name: getattr(policy.method, name) for name in type(policy.method).__slots__},
        "from": rows["target_time"].min().isoformat(),
        "until": rows["target_time"].max().isoformat(),
    }


def _contestants(policy: Policy, rows: pd.DataFrame, best: str) -> dict[str, dict[str, Any]]:
    """Column of the rows -> who it is."""
    groups = _groups(policy)
    found: dict[str, dict[str, Any]] = {
        name: {"name": name, "kind": name, "group": None} for name in ("policy", "uniform", "inverse_score")
    }
    found["best_single"] = {"name": best, "kind": "best_single_hindsight", "group": groups[best]}
    for kind in HINDSIGHT:
        found[kind] = {"name": kind, "kind": f"{kind}_hindsight", "group": None}
    for column in (name for name in rows.columns if name.startswith("peer:")):
        found[column] = {"name": column.removeprefix("peer:"), "kind": "peer", "group": None}
    found |= {
        f"expert:{name}": {"name": name, "kind": "expert", "group": group} for name, group in groups.items()
    }
    return found


def _groups(policy: Policy) -> dict[str, str]:
    return dict.fromkeys(policy.online_models, "online") | dict.fromkeys(policy.offline_models, "offline")


def _loss(part: pd.DataFrame, column: str) -> dict[str, Any]:
    error = (part[column] - part["y"]).abs()
    served = error.notna()
    return {
        "mae": finite(float(error.mean())),
        "mase": finite(float((error / part["scale"]).mean())),
        "n": int(served.sum()),
        "served_share": float(served.mean()) if len(part) else 0.0,
    }


def _regret(policy: Policy, rows: pd.DataFrame, leads: list[int]) -> dict[str, Any]:
    """Summed absolute error above the best single expert, and the bound, over series and leads."""
    setup = policy.engine(next(iter(policy.series))).setup
    per_lead: list[dict[str, Any]] = []
    for lead in leads:
        part = rows[(rows["lead"] == lead) & rows["best_single"].notna()]
        gap = (part["policy"] - part["y"]).abs() - (part["best_single"] - part["y"]).abs()
        bounds = [
            bound_of(setup, (own["policy"] - own["best_single"]).to_numpy(), lead)
            for _, own in part.groupby("series")
        ]
        bound = None if None in bounds else math.fsum(one for one in bounds if one is not None)
        per_lead.append({"lead": lead, "realised": float(gap.sum()), "bound": bound, "rows": len(part)})
    known = [float(entry["bound"]) for entry in per_lead if entry["bound"] is not None]
    return {
        "realised": math.fsum(entry["realised"] for entry in per_lead),
        "bound": math.fsum(known) if known and len(known) == len(per_lead) else None,
        "per_lead": per_lead,
    }
