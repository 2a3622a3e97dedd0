"""The output contract of a predict command: can this file be used as an expert's forecasts?

The answer is one sentence that a person can act on, or None. The checks run from the file to its
rows to its fit with the truth, and the first that fails speaks. Nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from modelyard.core.errors import TableError
from modelyard.results.tables import load_predictions, load_truth

GROUPS = ("online", "offline")
LEAST_SHARE = 0.95
"""The share of the truth that an expert has to serve."""

_Ints = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """One model's forecasts as arrays of shape [rows]; times and the step in microseconds."""

    series: npt.NDArray[np.object_]
    origin: _Ints
    lead: _Ints
    target: _Ints
    issued: _Ints
    y_pred: npt.NDArray[np.float64]
    step: int

    @classmethod
    def of(cls, table: pa.Table, step_s: float) -> Forecasts:
        """The arrays of a table as `load_predictions` returns it."""
        return cls(
            series=_texts(table["series"]),
            origin=_micros(table["origin"]),
            lead=table["lead"].to_numpy().astype(np.int64),
            target=_micros(table["target_time"]),
            issued=_micros(table["issued_at"]),
            y_pred=table["y_pred"].to_numpy(),
            step=round(step_s * 1e6),
        )

    def __len__(self) -> int:
        return len(self.lead)

    def place(self, row: int) -> str:
        """Where a row stands in the file and in time."""
        return f"data row {row + 1} (origin {_iso(self.origin[row])}, lead {self.lead[row]})"


def check_predictions(
    path: Path, *, truth: Path | None, horizon: int, step_s: float, group: str
) -> str | None:
    """Why a predict command's output cannot be used, or None when it can.

    An online expert has to serve, at every lead 1..horizon, at least 95 % of each series' times (the
    first `lead` of each series excepted: their origins may lie before its data); an offline expert
    has to serve as many with any forecast issued at least one step before. The lead served is counted
    from `issued_at`, as the ensemble counts it. Rows of the truth without a value ask for nothing.

    Args:
        path: the predictions, CSV or Parquet.
        truth: the observed values, or None to leave out the fit with them.
        horizon: the policy's longest lead, steps.
        step_s: the length of a step, seconds.
        group: `online` or `offline`.

    Raises:
        TableError: the truth cannot be used, or the group is unknown; neither is the model's fault.
    """
    if group not in GROUPS:
        raise TableError(f"group {group!r} is not known; use one of {', '.join(GROUPS)}")
    try:
        forecasts = Forecasts.of(load_predictions(path), step_s)
    except TableError as error:
        return str(error)
    for check in _ROW_CHECKS:
        reason = check(forecasts)
        if reason is not None:
            return reason
    return None if truth is None else _misaligned(forecasts, load_truth(truth), horizon, group)


def _empty(forecasts: Forecasts) -> str | None:
    return None if len(forecasts) else "the file holds a header but no forecast"


def _not_finite(forecasts: Forecasts) -> str | None:
    wrong = ~np.isfinite(forecasts.y_pred)
    return _first(forecasts, wrong, "y_pred is not finite", lambda row: f"{forecasts.y_pred[row]}")


def _lead_below_one(forecasts: Forecasts) -> str | None:
    return _first(forecasts, forecasts.lead < 1, "lead is below 1", lambda row: f"{forecasts.lead[row]}")


def _target_off_grid(forecasts: Forecasts) -> str | None:
    due = forecasts.origin + forecasts.lead * forecasts.step
    problem = f"target_time is not origin + lead x {forecasts.step / 1e6:g} s"
    return _first(
        forecasts,
        forecasts.target != due,
        problem,
        lambda row: f"{_iso(forecasts.target[row])} where {_iso(due[row])} is due",
    )


def _issued_after_target(forecasts: Forecasts) -> str | None:
    return _first(
        forecasts,
        forecasts.issued > forecasts.target,
        "issued_at is later than target_time (a forecast after the fact)",
        lambda row: f"issued {_iso(forecasts.issued[row])} for {_iso(forecasts.target[row])}",
    )


def _issued_before_origin(forecasts: Forecasts) -> str | None:
    return _first(
        forecasts,
        forecasts.issued < forecasts.origin,
        "issued_at is before origin, the newest observation that the forecast knows",
        lambda row: f"issued {_iso(forecasts.issued[row])}",
    )


def _doubled(forecasts: Forecasts) -> str | None:
    _, codes = np.unique(forecasts.series, return_inverse=True)
    order = np.lexsort((forecasts.lead, forecasts.origin, codes))
    keys = np.stack((codes, forecasts.origin, forecasts.lead))[:, order]
    wrong = np.zeros(len(forecasts), dtype=bool)
    wrong[order[1:]] = (keys[:, 1:] == keys[:, :-1]).all(
        axis=0
    )  # lexsort is stable: the later row is the double
    return _first(
        forecasts,
        wrong,
        "the same series, origin and lead stand in an earlier row",
        lambda row: f"series {forecasts.series[row]!r}, y_pred {forecasts.y_pred[row]:g}",
    )


_ROW_CHECKS = (
    _empty,
    _not_finite,
    _lead_below_one,
    _target_off_grid,
    _issued_after_target,
    _issued_before_origin,
    _doubled,
)


def _first(forecasts: Forecasts, wrong: _Mask, problem: str, value: Callable[[int], str]) -> str | None:
    count = int(wrong.sum())
    if not count:
        return None
    row = int(np.argmax(wrong))
    return f"{problem} in {count} of {len(forecasts)} rows, the first is {forecasts.place(row)}: {value(row)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coverage:
    """The rows of one series that one lead has to serve, and all rows it serves; shape [truth rows]."""

    lead: int
    asked: _Mask
    served: _Mask

    @property
    def share(self) -> float:
        return float(self.served[self.asked].mean()) if self.asked.any() else 1.0


def _misaligned(forecasts: Forecasts, truth: pa.Table, horizon: int, group: str) -> str | None:
    """The sentence about too little overlap with the truth; `truth` is sorted by series and time."""
    truth = truth.filter(np.isfinite(truth["y"].to_numpy()))
    series, target = _texts(truth["series"]), _micros(truth["target_time"])
    row_of = _rows_in_truth(forecasts, series, target)
    if not (row_of >= 0).any():
        return _apart(forecasts, series, target)
    age = (forecasts.target - forecasts.issued) // forecasts.step
    rank = np.arange(len(series)) - np.searchsorted(series, series)
    codes = np.unique(series, return_inverse=True)[1]
    coverages = []
    for lead in range(1, horizon + 1) if group == "online" else (1,):
        fits = (age == lead) if group == "online" else (age >= lead)
        served = np.zeros(len(series), dtype=bool)
        served[row_of[fits & (row_of >= 0)]] = True
        coverages.append(_worst_series(lead, rank >= lead, served, codes))
    worst = min(coverages, key=lambda coverage: coverage.share)
    if worst.share >= LEAST_SHARE:
        return None
    return _too_few(worst, series, target, late=bool((forecasts.issued > forecasts.origin).any()))


def _worst_series(lead: int, asked: _Mask, served: _Mask, codes: _Ints) -> _Coverage:
    """The coverage of the series that is served least: a full one does not make up for an empty one."""
    number = int(codes.max()) + 1
    rows = np.bincount(codes[asked], minlength=number)
    hits = np.bincount(codes[asked & served], minlength=number)
    share = np.where(rows > 0, hits / np.maximum(rows, 1), 1.0)
    return _Coverage(lead=lead, asked=asked & (codes == int(share.argmin())), served=served)


def _rows_in_truth(forecasts: Forecasts, series: npt.NDArray[np.object_], target: _Ints) -> _Ints:
    """For each forecast, the truth's row of its series and target time, or -1; shape [forecasts]."""
    names, codes = np.unique(series, return_inverse=True)
    times = np.unique(target)
    row_at = np.full((len(names) + 1, len(times) + 1), -1, dtype=np.int64)
    row_at[codes, np.searchsorted(times, target)] = np.arange(len(target))
    where_time = np.searchsorted(times, forecasts.target)
    where_time[np.append(times, np.iinfo(np.int64).min)[where_time] != forecasts.target] = len(times)
    code_of = {name: code for code, name in enumerate(names)}
    served, inverse = np.unique(forecasts.series, return_inverse=True)
    where_name = np.array([code_of.get(name, len(names)) for name in served], dtype=np.int64)[inverse]
    return row_at[where_name, where_time]


def _apart(forecasts: Forecasts, series: npt.NDArray[np.object_], target: _Ints) -> str:
    mine, theirs = sorted(set(forecasts.series)), sorted(set(series))
    if not theirs:
        return "misaligned: the truth holds no value to forecast"
    if not set(mine) & set(theirs):
        return f"misaligned: the forecasts are of series {_some(mine)}, but the truth is of {_some(theirs)}"
    return (
        f"misaligned: none of the {len(np.unique(forecasts.target))} target times "
        f"({_iso(forecasts.target.min())} to {_iso(forecasts.target.max())}) is among the truth's "
        f"{len(np.unique(target))} ({_iso(target.min())} to {_iso(target.max())})"
    )


def _too_few(worst: _Coverage, series: npt.NDArray[np.object_], target: _Ints, *, late: bool) -> str:
    missing = np.flatnonzero(worst.asked & ~worst.served)
    times = target[missing]
    counted = " (a lead is counted from issued_at)" if late else ""
    return (
        f"misaligned: at lead {worst.lead}{counted} only {int((worst.served & worst.asked).sum())} of "
        f"{int(worst.asked.sum())} truth rows ({worst.share:.1%}) are served, but {LEAST_SHARE:.0%} is "
        f"required; {len(missing)} are missing, from {_iso(times.min())} to {_iso(times.max())}, "
        f"the first in series {series[missing[0]]!r}"
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _texts(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    return np.asarray(column.to_numpy(), dtype=object)


def _micros(column: pa.ChunkedArray) -> _Ints:
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _iso(micros: int | np.int64) -> str:
    text = str(np.datetime64(int(micros), "us"))
    return text.removesuffix(".000000") + "Z"
