"""Shocks: the largest gaps between the truth and its seasonal expectation, apart from each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from modelyard.ensemble.report.shocks import largest_shocks


def truth_rows(hours: int, series: str = "main") -> pd.DataFrame:
    times = pd.date_range("2013-07-01", periods=hours, freq="h", tz="UTC")
    y = 50 + 20 * np.sin(2 * np.pi * np.arange(hours) / 24)
    return pd.DataFrame({"series": series, "target_time": times, "y": y})


def test_shocks_are_found_where_they_are_largest_and_apart() -> None:
    rows = truth_rows(24 * 35)
    rows.loc[[100, 101, 102], "y"] += (30, 40, 35)
    rows.loc[400, "y"] -= 60
    rows.loc[[700, 740, 790], "y"] += (20, 19, 18)  # 740 lies in the window of 700, 790 does not

    found = largest_shocks(rows, 24, count=4)

    assert found.index.tolist() == [400, 101, 700, 790]
    assert found["gap"].tolist() == pytest.approx([-60, 40, 20, 18])


def test_shocks_of_several_series_do_not_hide_each_other() -> None:
    rows = pd.concat([truth_rows(24 * 10), truth_rows(24 * 10, "lga")], ignore_index=True)
    rows.loc[[100, 340], "y"] += (30, 20)

    found = largest_shocks(rows, 24, count=2)

    assert found["series"].tolist() == ["main", "lga"]


def test_missing_truth_is_no_shock() -> None:
    rows = truth_rows(24 * 10)
    rows.loc[50, "y"] = np.nan
    rows.loc[60, "y"] += 5

    assert largest_shocks(rows, 24, count=1).index.tolist() == [60]
    assert largest_shocks(rows.assign(y=np.nan), 24).empty
