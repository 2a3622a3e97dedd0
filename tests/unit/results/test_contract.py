"""Each reason why a predict command's output is refused, and that nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import TableError
from modelyard.results.contract import check_predictions

HOUR = pd.Timedelta(hours=1)
START = pd.Timestamp("2013-07-01T00:00Z")
HORIZON = 3


def truth_frame(hours: int = 100, series: str = "main") -> pd.DataFrame:
    times = pd.date_range(START, periods=hours, freq="h")
    return pd.DataFrame({"series": series, "target_time": times, "y": np.arange(hours, dtype=float)})


def online(truth: pd.DataFrame, horizon: int = HORIZON) -> pd.DataFrame:
    """A row for every origin from one step before the truth, at each lead."""
    last = truth["target_time"].max()
    origins = pd.date_range(START - HOUR, last - HOUR, freq="h")
    rows = [(origin, lead, origin + lead * HOUR) for origin in origins for lead in range(1, horizon + 1)]
    frame = pd.DataFrame(rows, columns=["origin", "lead", "target_time"])
    return frame.assign(series=truth["series"].iloc[0], y_pred=1.0)


def offline(truth: pd.DataFrame) -> pd.DataFrame:
    """One origin before the truth, every time of it."""
    frame = truth[["series", "target_time"]].assign(origin=START - HOUR, y_pred=1.0)
    return frame.assign(lead=(frame["target_time"] - frame["origin"]) // HOUR)


def check(
    folder: Path, frame: pd.DataFrame, truth: pd.DataFrame | None = None, group: str = "online"
) -> str | None:
    path = folder / "predictions.csv"
    frame.to_csv(path, index=False)
    truth_path = None
    if truth is not None:
        truth_path = folder / "truth.csv"
        truth.to_csv(truth_path, index=False)
    return check_predictions(path, truth=truth_path, horizon=HORIZON, step_s=3600.0, group=group)


def test_full_forecasts_are_accepted(tmp_path: Path) -> None:
    truth = truth_frame()

    assert check(tmp_path, online(truth), truth) is None
    assert check(tmp_path, offline(truth), truth, "offline") is None
    assert check(tmp_path, online(truth).sample(frac=1.0, random_state=1), truth) is None


@settings(max_examples=25, deadline=None)
@given(
    hours=st.integers(1, 30),
    horizon=st.integers(HORIZON, 6),
    seed=st.integers(0, 99),
    gaps=st.sets(st.integers(0, 29)),
)
def test_any_full_service_passes_whatever_the_order_the_length_and_the_gaps_of_the_truth(
    tmp_path_factory: pytest.TempPathFactory, hours: int, horizon: int, seed: int, gaps: set[int]
) -> None:
    truth = truth_frame(hours)
    known = truth[~truth.index.isin(gaps)] if len(gaps) < hours else truth
    frame = online(truth, horizon).sample(frac=1.0, random_state=seed)

    assert check(tmp_path_factory.mktemp("full"), frame, known) is None


def spoil(frame: pd.DataFrame, row: int, column: str, value: object) -> pd.DataFrame:
    spoilt = frame.astype({column: object})
    spoilt.loc[row, column] = value
    return spoilt


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("y_pred", np.inf, "y_pred is not finite in 1 of 300 rows, the first is data row 8"),
        ("y_pred", "", "y_pred is not finite in 1 of 300 rows"),
        ("lead", 0, "lead is below 1 in 1 of 300 rows"),
        ("lead", -2, "(origin 2013-07-01T01:00:00Z, lead -2): -2"),
        ("lead", 1, "target_time is not origin + lead x 3600 s in 1 of 300 rows"),
        ("target_time", START, "2013-07-01T00:00:00Z where 2013-07-01T03:00:00Z is due"),
    ],
)
def test_a_wrong_row_is_named_with_its_place_and_value(
    tmp_path: Path, column: str, value: object, reason: str
) -> None:
    spoilt = spoil(online(truth_frame()), 7, column, value)

    assert reason in str(check(tmp_path, spoilt))


def test_only_the_first_wrong_row_is_shown_but_all_are_counted(tmp_path: Path) -> None:
    frame = online(truth_frame())
    frame.loc[[20, 5, 250], "y_pred"] = np.nan

    reason = check(tmp_path, frame)

    assert reason is not None and "in 3 of 300 rows" in reason and "data row 6 " in reason and "nan" in reason


def test_a_forecast_issued_after_the_fact_is_refused(tmp_path: Path) -> None:
    frame = online(truth_frame())
    frame["issued_at"] = frame["target_time"] + pd.Timedelta(minutes=1)

    assert "issued_at is later than target_time" in str(check(tmp_path, frame))


def test_a_forecast_issued_before_its_origin_is_refused(tmp_path: Path) -> None:
    frame = online(truth_frame())
    frame["issued_at"] = frame["origin"] - HOUR

    assert "issued_at is before origin" in str(check(tmp_path, frame))


def test_a_forecast_may_be_issued_at_its_target_time(tmp_path: Path) -> None:
    frame = online(truth_frame())
    frame["issued_at"] = frame["target_time"]

    assert check(tmp_path, frame) is None


def test_a_double_is_found_even_when_its_times_are_spelt_otherwise(tmp_path: Path) -> None:
    frame = online(truth_frame()).astype({"origin": str})
    again = frame.iloc[[4]].assign(origin="2013-07-01T02:00+02:00", y_pred=9.0)

    reason = check(tmp_path, pd.concat([frame, again]))

    assert (
        reason is not None
        and "stand in an earlier row in 1 of 301 rows" in reason
        and "data row 301 " in reason
    )
    assert "y_pred 9" in reason


def test_the_same_origin_in_two_series_is_no_double(tmp_path: Path) -> None:
    both = [online(truth_frame(series=name)) for name in ("jfk", "lga")]
    truth = pd.concat([truth_frame(series=name) for name in ("jfk", "lga")])

    assert check(tmp_path, pd.concat(both), truth) is None
    reason = str(check(tmp_path, both[0], truth))
    assert "only 0 of 99 truth rows (0.0%)" in reason
    assert "the first in series 'lga'" in reason


def test_a_missing_series_is_not_made_up_for_by_full_ones(tmp_path: Path) -> None:
    names = [f"s{number:02d}" for number in range(40)]
    truth = pd.concat([truth_frame(30, series=name) for name in names])
    served = pd.concat([online(truth_frame(30, series=name)) for name in names if name != "s17"])

    assert "series 's17'" in str(check(tmp_path, served, truth))


def test_no_row_no_column_no_file(tmp_path: Path) -> None:
    frame = online(truth_frame())

    assert check(tmp_path, frame.iloc[:0]) == "the file holds a header but no forecast"
    assert "lacks the column origin" in str(check(tmp_path, frame.drop(columns="origin")))
    absent = check_predictions(tmp_path / "absent", truth=None, horizon=1, step_s=1, group="online")
    assert "there is no such file" in str(absent)


def test_forecasts_of_other_times_are_misaligned(tmp_path: Path) -> None:
    truth = truth_frame()
    later = online(truth)
    later[["origin", "target_time"]] += pd.Timedelta(days=30)

    reason = str(check(tmp_path, later, truth))

    assert reason.startswith(
        "misaligned: none of the 102 target times (2013-07-31T00:00:00Z to 2013-08-04T05:00:00Z)"
    )
    assert "2013-07-05T03:00:00Z" in reason


def test_forecasts_half_an_hour_off_the_truth_are_misaligned(tmp_path: Path) -> None:
    truth = truth_frame()
    shifted = online(truth)
    shifted[["origin", "target_time"]] += pd.Timedelta(minutes=30)

    assert "misaligned: none" in str(check(tmp_path, shifted, truth))


def test_forecasts_of_another_series_are_misaligned(tmp_path: Path) -> None:
    reason = check(tmp_path, online(truth_frame(series="jfk")), truth_frame(series="lga"))

    assert reason == "misaligned: the forecasts are of series 'jfk', but the truth is of 'lga'"


@pytest.mark.parametrize(("left_out", "accepted"), [(4, True), (5, False)])
def test_ninety_five_percent_of_the_truth_is_enough(tmp_path: Path, left_out: int, accepted: bool) -> None:
    truth = truth_frame(101)  # lead 3 has to serve 98 rows, of which 4 may be missing
    frame = online(truth)
    gone = (frame["lead"] == HORIZON) & frame["target_time"].isin(
        truth["target_time"].iloc[40 : 40 + left_out]
    )

    reason = check(tmp_path, frame[~gone], truth)

    assert (reason is None) == accepted
    if not accepted:
        assert "at lead 3 only 93 of 98 truth rows (94.9%) are served" in str(reason)
        assert "5 are missing, from 2013-07-02T16:00:00Z to 2013-07-02T20:00:00Z" in str(reason)


def test_a_lead_that_is_never_served_is_named(tmp_path: Path) -> None:
    truth = truth_frame()

    assert "at lead 3 only 0 of 97" in str(check(tmp_path, online(truth, horizon=2), truth))


def test_the_lead_of_an_online_expert_counts_from_its_issue(tmp_path: Path) -> None:
    truth = truth_frame()
    late = online(truth).assign(issued_at=lambda frame: frame["origin"] + pd.Timedelta(minutes=5))
    longer = online(truth, HORIZON + 1).assign(
        issued_at=lambda frame: frame["origin"] + pd.Timedelta(minutes=5)
    )

    assert "at lead 3 (a lead is counted from issued_at) only 0 of 97" in str(check(tmp_path, late, truth))
    assert check(tmp_path, longer, truth) is None


def test_an_offline_expert_may_be_stale_but_not_absent(tmp_path: Path) -> None:
    truth = truth_frame()
    frame = offline(truth)

    assert check(tmp_path, frame.iloc[:97], truth, "offline") is None
    assert "at lead 1 only 49 of 99" in str(check(tmp_path, frame.iloc[:50], truth, "offline"))
    assert "at lead 1 only 0 of 99" in str(check(tmp_path, frame, truth, "online"))


def test_truth_without_values_asks_for_nothing(tmp_path: Path) -> None:
    truth = truth_frame()
    frame = online(truth)
    frame = frame[frame["target_time"] < START + 50 * HOUR]
    truth.loc[truth["target_time"] >= START + 50 * HOUR, "y"] = np.nan

    assert check(tmp_path, frame, truth) is None
    truth["y"] = np.nan
    assert check(tmp_path, frame, truth) == "misaligned: the truth holds no value to forecast"


def test_what_is_not_the_models_fault_is_raised(tmp_path: Path) -> None:
    frame = online(truth_frame())

    with pytest.raises(TableError, match="group 'onlin' is not known"):
        check(tmp_path, frame, group="onlin")
    with pytest.raises(TableError, match="lacks the column y"):
        check(tmp_path, frame, truth_frame().drop(columns="y"))


def test_steps_shorter_than_a_second_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("origin,lead,target_time,y_pred\n2013-07-01T00:00:00,7,2013-07-01T00:00:00.700000,1\n")

    assert check_predictions(path, truth=None, horizon=1, step_s=0.1, group="online") is None
