"""Reading and writing the two tables: formats, time zones, defaults, and every way to be refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import TableError
from modelyard.results.tables import (
    PREDICTIONS,
    SINGLE_SERIES,
    TRUTH,
    load_predictions,
    open_table,
    read_predictions,
    read_truth,
    write_predictions,
    write_truth,
)

HEADER = "origin,lead,target_time,y_pred\n"
ROW = "2013-07-01T00:00,1,2013-07-01T01:00,4.5\n"


def csv(folder: Path, text: str, name: str = "predictions.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_csv_without_series_and_issue_time_gets_both(tmp_path: Path) -> None:
    frame = read_predictions(csv(tmp_path, HEADER + ROW))

    assert list(frame.columns) == ["series", "origin", "lead", "target_time", "issued_at", "y_pred"]
    assert frame["series"].tolist() == [SINGLE_SERIES]
    assert frame["issued_at"].tolist() == frame["origin"].tolist() == [pd.Timestamp("2013-07-01T00:00Z")]
    assert frame["lead"].tolist() == [1] and frame["y_pred"].tolist() == [4.5]


@pytest.mark.parametrize(
    "written",
    [
        "2013-07-01T00:00",
        "2013-07-01 00:00:00",
        "2013-07-01",
        "2013-07-01T02:00:00+02:00",
        "2013-06-30T20:00-04:00",
    ],
)
def test_a_time_is_an_instant_however_it_is_written(tmp_path: Path, written: str) -> None:
    frame = read_predictions(csv(tmp_path, HEADER + f"{written},1,2013-07-01T01:00:00Z,4.5\n"))

    assert frame["origin"].iloc[0] == pd.Timestamp("2013-07-01T00:00Z")
    assert str(frame["origin"].dtype) == "datetime64[us, UTC]"


def test_two_spellings_may_stand_in_one_column(tmp_path: Path) -> None:
    mixed = HEADER + ROW + "2013-07-01T03:00:00+02:00,1,2013-07-01T02:00:00.000000Z,5\n"

    assert read_predictions(csv(tmp_path, mixed))["origin"].dt.hour.tolist() == [0, 1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_parquet_times_of_any_unit_and_zone_become_utc(tmp_path: Path, unit: str, zone: str | None) -> None:
    moment = pd.Timestamp("2013-07-01T00:00", tz=zone)
    column = pa.array([moment], type=pa.timestamp(unit, tz=zone))
    path = tmp_path / "truth.parquet"
    pq.write_table(pa.table({"target_time": column, "y": [1]}), path)

    read = read_truth(path)["target_time"].iloc[0]

    assert read == (moment if zone else moment.tz_localize("UTC"))


def test_compressed_csv_with_a_byte_order_mark_and_extra_columns_is_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv.gz"
    path.write_bytes(gzip.compress(("\ufeffnote,origin,lead,target_time,y_pred\nx," + ROW).encode()))

    assert read_predictions(path)["y_pred"].tolist() == [4.5]


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "model=zeta"
    folder.mkdir()
    write_predictions(folder / "p.parquet", example().assign(model="alpha"))

    assert read_predictions(folder / "p.parquet")["model"].unique().tolist() == ["alpha"]


def test_an_empty_value_is_nan(tmp_path: Path) -> None:
    assert np.isnan(read_predictions(csv(tmp_path, HEADER + ROW.replace("4.5", "")))["y_pred"].iloc[0])


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("", "is empty"),
        ("lead,y_pred\n1,2\n", "lacks the columns origin, target_time"),
        ("origin,lead,target_time\n", "lacks the column y_pred"),
        ("origin,lead,target_time,y_pred,lead\n", "has the column lead twice"),
        (HEADER + ROW + ROW.replace("2013-07-01T00:00", "yesterday"), "data row 2 with 'yesterday'"),
        (HEADER + ROW.replace("2013-07-01T00:00", ""), "origin is not an ISO 8601 time in 1 of 1 rows"),
        (HEADER + ROW.replace(",1,", ",1.5,"), "lead is not a whole number in 1 of 1 rows"),
        (HEADER + ROW.replace(",1,", ",,"), "lead is not set in 1 of 1 rows"),
        (HEADER + ROW.replace("4.5", "many"), "many"),
        (HEADER + ROW.replace(",4.5", ""), "Expected 4 columns, got 3"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused_with_its_path(tmp_path: Path, text: str, telling: str) -> None:
    path = csv(tmp_path, text)

    with pytest.raises(TableError) as refused:
        read_predictions(path)

    assert str(path) in str(refused.value) and telling in str(refused.value)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is no such file"):
        read_predictions(tmp_path / "absent.csv")
    with pytest.raises(TableError, match="cannot be read"):
        read_predictions(tmp_path)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(TableError, match="cannot be read as CSV or Parquet"):
        read_predictions(broken)


def test_epoch_numbers_are_not_guessed_to_be_times(tmp_path: Path) -> None:
    path = tmp_path / "truth.parquet"
    pq.write_table(pa.table({"target_time": [1372636800], "y": [1.0]}), path)

    with pytest.raises(TableError, match="target_time is int64, but times are required"):
        read_truth(path)


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.parquet"
    schema = TRUTH.schema.with_metadata({b"modelyard.schema": b"modelyard.truth/9"})
    pq.write_table(pa.Table.from_pylist([], schema=schema), path)

    with pytest.raises(TableError, match=r"is modelyard\.truth/9, but modelyard\.truth/1 is required"):
        read_truth(path)


def test_truth_is_sorted_and_has_one_value_a_time(tmp_path: Path) -> None:
    text = "series,target_time,y\nb,2013-07-01T01:00,3\nb,2013-07-01T00:00,2\na,2013-07-01T00:00,1\n"
    path = csv(tmp_path, text)

    assert read_truth(path)["y"].tolist() == [1, 2, 3]

    path.write_text(text + "b,2013-07-01T02:00+02:00,9\n")
    with pytest.raises(TableError, match=r"1 times have more than one value.*series 'b'"):
        read_truth(path)


def example(rows: int = 3) -> pd.DataFrame:
    origin = pd.date_range("2013-07-01", periods=rows, freq="h", tz="UTC").as_unit("us")
    return pd.DataFrame(
        {
            "model": "alpha",
            "series": "jfk",
            "origin": origin,
            "lead": np.int32(2),
            "target_time": origin + pd.Timedelta(hours=2),
            "issued_at": origin,
            "y_pred": np.arange(rows) + 0.5,
        }
    )


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8),
    series=st.text(st.characters(exclude_categories=("Cs",)), max_size=6),
    start_us=st.integers(-(2**50), 2**51),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], series: str, start_us: int
) -> None:
    path = tmp_path_factory.mktemp("tables") / "predictions.parquet"
    origin = pd.to_datetime(np.array([start_us]).astype("datetime64[us]"), utc=True)[0]
    frame = example(len(values)).assign(y_pred=values, series=series, origin=origin)

    write_predictions(path, frame)

    pd.testing.assert_frame_equal(read_predictions(path), frame, check_dtype=False, check_exact=True)
    assert pq.read_schema(path).metadata[b"modelyard.schema"] == b"modelyard.predictions/1"


def test_csv_and_parquet_of_one_table_read_alike(tmp_path: Path) -> None:
    frame = example(50)
    write_predictions(tmp_path / "p.parquet", frame)
    frame.to_csv(tmp_path / "p.csv", index=False)

    assert load_predictions(tmp_path / "p.csv").equals(load_predictions(tmp_path / "p.parquet"))


def test_a_frame_without_its_columns_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "truth.parquet"

    with pytest.raises(TableError, match="lack series, y"):
        write_truth(path, pd.DataFrame({"target_time": pd.to_datetime(["2013-07-01"], utc=True)}))
    with pytest.raises(TableError, match="cannot be written"):
        write_truth(path, pd.DataFrame({"series": ["a"], "target_time": ["soon"], "y": [1.0]}))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, example(2))
    before = path.read_bytes()

    with pytest.raises(KeyError), open_table(path, PREDICTIONS) as writer:
        writer.write_table(load_predictions(path).cast(PREDICTIONS.schema))
        raise KeyError

    assert path.read_bytes() == before
    assert [member.name for member in tmp_path.iterdir()] == ["predictions.parquet"]
