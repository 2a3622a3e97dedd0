"""The aligned matrix: every expert's forecast beside the truth, row by row, and nothing later.

For a target t and a policy lead h the matrix holds each expert's newest forecast of t that was issued
by t - h steps: what a policy deciding at that origin could have read. Building it is where look-ahead
is kept out. It does not know weights or scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modelyard.core.errors import TableError
from modelyard.ensemble.combining.lessons import Floats

_US = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesMatrix:
    """One series on a regular grid of target times."""

    series: str
    start_us: int  # first target time, microseconds since 1970 UTC
    truth_t: Floats  # (T,), NaN where not observed
    forecast_thk: Floats  # (T, H, K), NaN where not served
    staleness_s_thk: Floats  # (T, H, K): age of that forecast at the origin t - h, seconds

    def origin(self, index: int) -> Floats:
        """What is known at the origin with that index: forecasts for index + h, `(H, K)`."""
        leads = np.arange(self.forecast_thk.shape[1])
        targets = index + leads + 1
        inside = targets < len(self.truth_t)
        row = np.full(self.forecast_thk.shape[1:], np.nan)
        row[inside] = self.forecast_thk[targets[inside], leads[inside]]
        return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What an expert was seen to serve: the contract of its group."""

    name: str
    group: str
    leads: tuple[int, ...]  # served for at least half of the targets
    share: float  # of rows (t, h) with a truth that it serves
    worst_staleness_s: float  # NaN when it serves nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlignedMatrix:
    """Every series, with the same experts and leads."""

    experts: tuple[str, ...]
    groups: tuple[str, ...]  # "online" | "offline"
    step_s: float
    horizon: int
    parts: tuple[SeriesMatrix, ...]

    @property
    def leads(self) -> tuple[int, ...]:
        """1..horizon."""
        return tuple(range(1, self.horizon + 1))

    def index_of(self, part: SeriesMatrix, moment: pd.Timestamp) -> int:
        """The number of targets of `part` before `moment`."""
        gap = (
            int(moment.tz_convert(None).to_datetime64().astype("datetime64[us]").astype(np.int64))
            - part.start_us
        )
        step = round(self.step_s * _US)
        return int(np.clip(-(-gap // step), 0, len(part.truth_t)))

    def times(self, part: SeriesMatrix) -> pd.DatetimeIndex:
        """The target times of `part`, UTC, microseconds."""
        stamps = part.start_us + np.arange(len(part.truth_t)) * round(self.step_s * _US)
        return pd.DatetimeIndex(stamps.astype("datetime64[us]")).tz_localize("UTC")

    def select(self, experts: Sequence[int]) -> AlignedMatrix:
        """Only these experts, in this order."""
        order = list(experts)
        parts = tuple(
            replace(p, forecast_thk=p.forecast_thk[..., order], staleness_s_thk=p.staleness_s_thk[..., order])
            for p in self.parts
        )
        names = tuple(self.experts[k] for k in order)
        return replace(self, experts=names, groups=tuple(self.groups[k] for k in order), parts=parts)

    def fresh(self, max_staleness_s: float | None) -> AlignedMatrix:
        """Without the forecasts that were older at their origin; None keeps all."""
        if max_staleness_s is None:
            return self
        parts = tuple(
            replace(p, forecast_thk=np.where(p.staleness_s_thk > max_staleness_s, np.nan, p.forecast_thk))
            for p in self.parts
        )
        return replace(self, parts=parts)

    def until(self, cuts: Sequence[int]) -> AlignedMatrix:
        """Only the first targets of every series."""
        parts = tuple(
            replace(
                p,
                truth_t=p.truth_t[:cut],
                forecast_thk=p.forecast_thk[:cut],
                staleness_s_thk=p.staleness_s_thk[:cut],
            )
            for p, cut in zip(self.parts, cuts, strict=True)
        )
        return replace(self, parts=parts)

    def capabilities(self) -> tuple[Capability, ...]:
        """Leads served and worst staleness, expert by expert."""
        found = []
        for k, (name, group) in enumerate(zip(self.experts, self.groups, strict=True)):
            known = [np.isfinite(p.forecast_thk[np.isfinite(p.truth_t), :, k]) for p in self.parts]
            served_th = np.concatenate(known)
            stale = np.concatenate([p.staleness_s_thk[..., k].ravel() for p in self.parts])
            stale = stale[np.isfinite(stale)]
            by_lead = served_th.mean(axis=0) if len(served_th) else np.zeros(self.horizon)
            found.append(
                Capability(
                    name=name,
                    group=group,
                    leads=tuple(h for h in self.leads if by_lead[h - 1] >= 0.5),
                    share=float(served_th.mean()) if served_th.size else 0.0,
                    worst_staleness_s=float(stale.max()) if len(stale) else float("nan"),
                )
            )
        return tuple(found)


def build_matrix(
    predictions: pd.DataFrame, truth: pd.DataFrame, *, groups: Mapping[str, str], horizon: int, step_s: float
) -> AlignedMatrix:
    """Align the predictions table with the truth.

    Args:
        predictions: Columns `model, series, origin, lead, target_time, issued_at, y_pred`.
        truth: Columns `series, target_time, y`.
        groups: The experts to take, in order, and the group of each.
        horizon: H, the largest policy lead in steps.
        step_s: Seconds from one target time to the next.

    Raises:
        TableError: Duplicate rows, times off the grid, a forecast issued before its origin, an unknown
            or absent expert.
    """
    _check_experts(predictions, groups)
    wanted = predictions[predictions["model"].isin(list(groups))]
    _check_predictions(wanted, step_s)
    duplicated = truth.duplicated(["series", "target_time"])
    if duplicated.any():
        raise _duplicates("truth", truth[duplicated], ("series", "target_time"))
    by_series = dict(tuple(wanted.groupby("series", sort=False)))
    parts = []
    for name, own in truth.groupby("series", sort=True):
        own_predictions = by_series.get(name, wanted.iloc[:0])
        parts.append(_one_series(str(name), own, own_predictions, list(groups), horizon, step_s))
    if not parts:
        raise TableError("the truth holds no row; nothing can be learnt from it")
    return AlignedMatrix(
        experts=tuple(groups),
        groups=tuple(groups.values()),
        step_s=step_s,
        horizon=horizon,
        parts=tuple(parts),
    )


def _one_series(
    name: str,
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    experts: Sequence[str],
    horizon: int,
    step_s: float,
) -> SeriesMatrix:
    step = round(step_s * _US)
    times = _microseconds(truth["target_time"])
    start = int(times.min())
    index = _on_grid(times, start, step, f"truth of series {name!r}")
    truth_t = np.full(int(index.max()) + 1, np.nan)
    truth_t[index] = truth["y"].to_numpy(dtype=float)
    truth_t[~np.isfinite(truth_t)] = np.nan
    shape = (len(truth_t), horizon, len(experts))
    forecast, staleness = np.full(shape, np.nan), np.full(shape, np.nan)
    for k, expert in enumerate(experts):
        own = predictions[(predictions["model"] == expert) & np.isfinite(predictions["y_pred"].astype(float))]
        own = own.sort_values(["target_time", "issued_at", "origin"], kind="stable")
        at = _on_grid(_microseconds(own["target_time"]), start, step, f"predictions of {expert!r}")
        issued, value = _microseconds(own["issued_at"]), own["y_pred"].to_numpy(dtype=float)
        inside = (at >= 0) & (at < len(truth_t))
        at, issued, value = at[inside], issued[inside], value[inside]
        for lead in range(1, horizon + 1):
            age = start + (at - lead) * step - issued
            newest = _last_of_each(at, age >= 0)
            forecast[at[newest], lead - 1, k] = value[newest]
            staleness[at[newest], lead - 1, k] = age[newest] / _US
    return SeriesMatrix(
        series=name, start_us=start, truth_t=truth_t, forecast_thk=forecast, staleness_s_thk=staleness
    )


def _last_of_each(sorted_key: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Of the allowed rows, the last one of every run of equal keys."""
    rows = np.flatnonzero(allowed)
    keys = sorted_key[rows]
    last = np.ones(len(rows), dtype=bool)
    last[:-1] = keys[1:] != keys[:-1]
    return rows[last]


def _microseconds(times: pd.Series[pd.Timestamp]) -> NDArray[np.int64]:
    stamps = pd.DatetimeIndex(pd.to_datetime(times, utc=True))
    return np.asarray(stamps.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64))


def _on_grid(times: NDArray[np.int64], start: int, step: int, what: str) -> NDArray[np.int64]:
    index, rest = np.divmod(times - start, step)
    if rest.any():
        stamp = np.datetime64(int(times[np.flatnonzero(rest)[0]]), "us")
        raise TableError(
            f"{what}: target_time {stamp} is not a whole number of steps of {step / _US:g} s after "
            f"{np.datetime64(start, 'us')}; resample it, or correct step"
        )
    return np.asarray(index)


def _check_experts(predictions: pd.DataFrame, groups: Mapping[str, str]) -> None:
    present = set(predictions["model"].unique())
    if not groups:
        raise TableError("no expert is left to combine; give at least one model in groups")
    for name, group in groups.items():
        if group not in ("online", "offline"):
            raise TableError(f"model {name!r} has group {group!r}; use online or offline")
        if name not in present:
            raise TableError(f"model {name!r} has no row in the predictions; predict, or leave it out")


def _check_predictions(predictions: pd.DataFrame, step_s: float) -> None:
    key = ["model", "series", "origin", "lead"]
    duplicated = predictions.duplicated(key)
    if duplicated.any():
        raise _duplicates("predictions", predictions[duplicated], key)
    origin = _microseconds(predictions["origin"])
    early = _microseconds(predictions["issued_at"]) < origin
    if early.any():
        row = predictions[early].iloc[0]
        raise TableError(
            f"model {row['model']!r}: issued_at {row['issued_at']} lies before its origin {row['origin']}; "
            f"a forecast cannot be issued before the data it knows"
        )
    lead = predictions["lead"].to_numpy(dtype=float) * step_s * _US
    wrong = _microseconds(predictions["target_time"]) - origin != np.round(lead).astype(np.int64)
    if wrong.any():
        row = predictions[wrong].iloc[0]
        raise TableError(
            f"model {row['model']!r}: target_time {row['target_time']} is not origin {row['origin']} + "
            f"{row['lead']} steps of {step_s:g} s; correct lead or target_time"
        )


def _duplicates(what: str, rows: pd.DataFrame, key: Sequence[str]) -> TableError:
    shown = ", ".join(f"{name}={rows.iloc[0][name]}" for name in key)
    return TableError(f"{what}: {len(rows)} rows repeat a key, the first with {shown}; keep one row for each")
