from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from modelyard.core.errors import TableError
from modelyard.ensemble.runtime.matrix import build_matrix

HOUR = pd.Timedelta(hours=1)
T0 = pd.Timestamp("2024-01-01", tz="UTC")


def truth(rows=6, series="s"):
    times = [T0 + i * HOUR for i in range(rows)]
    return pd.DataFrame({"series": series, "target_time": times, "y": np.arange(rows, dtype=float)})


def prediction(origin, lead, value, *, issued=None, model="m", series="s"):
    start = T0 + origin * HOUR
    return {
        "model": model,
        "series": series,
        "origin": start,
        "lead": lead,
        "target_time": start + lead * HOUR,
        "issued_at": start if issued is None else T0 + issued * HOUR,
        "y_pred": value,
    }


def build(rows, *, horizon=3, groups=None, truth_table=None):
    return build_matrix(
        pd.DataFrame(rows),
        truth() if truth_table is None else truth_table,
        groups=groups or {"m": "offline"},
        horizon=horizon,
        step_s=3600,
    )


def test_a_lead_takes_the_newest_forecast_known_at_its_origin():
    rows = [prediction(0, 4, 10.0), prediction(2, 2, 20.0), prediction(3, 1, 30.0)]
    part = build(rows).parts[0]
    assert part.forecast_thk[4, :, 0].tolist() == [30.0, 20.0, 10.0]
    assert part.staleness_s_thk[4, :, 0].tolist() == [0.0, 0.0, 3600.0]
    assert np.isnan(part.forecast_thk[3]).all()


def test_a_forecast_issued_later_than_its_origin_counts_from_then():
    part = build([prediction(0, 4, 10.0, issued=2)]).parts[0]
    assert part.forecast_thk[4, :2, 0].tolist() == [10.0, 10.0]
    assert np.isnan(part.forecast_thk[4, 2, 0])


def test_an_older_forecast_issued_late_wins_as_the_newest():
    part = build([prediction(1, 3, 1.0, issued=3), prediction(2, 2, 2.0)]).parts[0]
    assert part.forecast_thk[4, :2, 0].tolist() == [1.0, 2.0]


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    rows = [prediction(o, h, float(rng.normal())) for o in range(5) for h in range(1, 6) if o + h < 6]
    plain, mixed = build(rows), build([rows[i] for i in rng.permutation(len(rows))])
    assert np.array_equal(plain.parts[0].forecast_thk, mixed.parts[0].forecast_thk, equal_nan=True)


def test_an_origin_shows_what_is_known_there():
    part = build([prediction(2, 1, 3.5), prediction(2, 2, 4.5), prediction(3, 1, 9.0)]).parts[0]
    assert part.origin(2)[:2, 0].tolist() == [3.5, 4.5]
    assert np.isnan(part.origin(5)).all()


def test_capabilities_are_what_was_seen():
    rows = [prediction(o, 1, 1.0, model="fast") for o in range(5)]
    rows += [prediction(-3, h, 1.0, model="slow") for h in range(3, 9)]
    seen = build(rows, groups={"fast": "online", "slow": "offline"}).capabilities()
    assert [(c.name, c.group, c.leads) for c in seen] == [
        ("fast", "online", (1,)),
        ("slow", "offline", (1, 2, 3)),
    ]
    assert seen[1].worst_staleness_s == 3600 * 7


def test_values_that_are_not_finite_are_not_served():
    part = build([prediction(3, 1, np.inf), prediction(2, 2, 7.0)]).parts[0]
    assert part.forecast_thk[4, :2, 0].tolist()[1] == 7.0


def test_series_are_apart_and_gaps_are_filled_with_nothing():
    table = pd.concat([truth(), truth(4, "z").drop(index=2)])
    rows = [prediction(1, 1, 5.0), prediction(1, 1, 6.0, series="z")]
    matrix = build(rows, truth_table=table)
    assert [p.series for p in matrix.parts] == ["s", "z"]
    assert [p.forecast_thk[2, 0, 0] for p in matrix.parts] == [5.0, 6.0]
    assert np.isnan(matrix.parts[1].truth_t[2])
    assert matrix.index_of(matrix.parts[0], T0 + 2.5 * HOUR) == 3
    assert matrix.times(matrix.parts[0])[2] == T0 + 2 * HOUR


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([prediction(1, 1, 5.0), prediction(1, 1, 5.0)], "1 rows repeat a key"),
        ([prediction(1, 1, 5.0), prediction(1, 1, 6.0)], "repeat a key"),
        ([prediction(2, 1, 5.0, issued=1)], "before its origin"),
        ([prediction(1.5, 1, 5.0)], "whole number of steps"),
        ([prediction(1, 1, 5.0) | {"lead": 2}], "is not origin"),
        ([prediction(1, 1, 5.0, model="other")], "has no row in the predictions"),
    ],
)
def test_inconsistent_predictions_are_refused(rows, said):
    with pytest.raises(TableError, match=said):
        build(rows)


def test_inconsistent_truth_and_groups_are_refused():
    doubled = pd.concat([truth(), truth()])
    with pytest.raises(TableError, match="truth: 6 rows repeat"):
        build([prediction(1, 1, 5.0)], truth_table=doubled)
    with pytest.raises(TableError, match="use online or offline"):
        build([prediction(1, 1, 5.0)], groups={"m": "both"})
