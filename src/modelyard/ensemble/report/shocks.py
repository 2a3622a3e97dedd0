"""Shocks: where the truth of a backtest is farthest from what its place in the season leads one to expect.

They describe what happened, with the whole span known; mutants, which steer forecasts, are another matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

#: Steps shown on either side of a shock.
WINDOW_STEPS = 36
_SHOCKS = 3
_COLUMNS = ["series", "target_time", "y", "expected", "gap"]


def largest_shocks(rows: pd.DataFrame, period: int, count: int = _SHOCKS) -> pd.DataFrame:
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
        return rows.iloc[:0].assign(expected=0.0, gap=0.0)[_COLUMNS]
    ranked = pd.concat(found).sort_values("gap", key=abs, ascending=False, kind="stable")
    chosen: list[Any] = []
    for row in ranked.itertuples():
        near = (
            kept.series == row.series and abs(kept.place - row.place) <= 2 * WINDOW_STEPS for kept in chosen
        )
        if not any(near):
            chosen.append(row)
        if len(chosen) == count:
            break
    return ranked.loc[[row.Index for row in chosen], _COLUMNS]
