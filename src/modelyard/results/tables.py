"""The predictions table and the truth: one schema, read from CSV or Parquet, written as Parquet.

    predictions   [model] series  origin  lead  target_time  issued_at  y_pred
    truth                 series                target_time             y

Times are microseconds in UTC; a time without a zone is UTC. `model` stands only in a table that
joins several models. This module knows the types of the columns; whether a forecast is any use is
`results.contract`'s question.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from csv import reader as csv_reader
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from modelyard.core.errors import TableError

SINGLE_SERIES = "main"
"""The name of the series in a file without a `series` column."""

_TIME = pa.timestamp("us", tz="UTC")
_VERSION_KEY = b"modelyard.schema"
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The columns of one kind of table, which of them a file must hold, and the version it is written as."""

    noun: str
    schema: pa.Schema
    required: tuple[str, ...]

    @property
    def version(self) -> str:
        """The schema name and version, such as `modelyard.truth/1`."""
        return str(self.schema.metadata[_VERSION_KEY].decode())


PREDICTIONS = Layout(
    noun="predictions",
    schema=pa.schema(
        [
            ("model", pa.string()),
            ("series", pa.string()),
            ("origin", _TIME),
            ("lead", pa.int32()),
            ("target_time", _TIME),
            ("issued_at", _TIME),
            ("y_pred", pa.float64()),
        ],
        metadata={_VERSION_KEY: b"modelyard.predictions/1"},
    ),
    required=("origin", "lead", "target_time", "y_pred"),
)
TRUTH = Layout(
    noun="truth",
    schema=pa.schema(
        [("series", pa.string()), ("target_time", _TIME), ("y", pa.float64())],
        metadata={_VERSION_KEY: b"modelyard.truth/1"},
    ),
    required=("target_time", "y"),
)


def read_predictions(path: Path) -> pd.DataFrame:
    """The forecasts in a CSV or Parquet file, in the file's order.

    Args:
        path: a model's own file, or a table that joins several models.

    Returns:
        One row per forecast: `series, origin, lead, target_time, issued_at, y_pred`, after `model`
        where the file has it. A missing `series` is `SINGLE_SERIES`, a missing `issued_at` is `origin`,
        a missing `y_pred` is NaN.

    Raises:
        TableError: the file cannot be read, lacks a column, or a value is not of its column's type.
    """
    return _frame(load_predictions(path))


def read_truth(path: Path) -> pd.DataFrame:
    """The observed values in a CSV or Parquet file, sorted: `series, target_time, y`.

    Raises:
        TableError: as `read_predictions`, or a series has two values for one time.
    """
    return _frame(load_truth(path))


def load_predictions(path: Path) -> pa.Table:
    """`read_predictions` as an Arrow table, which takes a quarter of the memory."""
    table = _load(path, PREDICTIONS)
    if "issued_at" not in table.column_names:
        table = table.append_column("issued_at", table["origin"])
    return table.select([name for name in PREDICTIONS.schema.names if name in table.column_names])


def load_truth(path: Path) -> pa.Table:
    """`read_truth` as an Arrow table."""
    table = _load(path, TRUTH).select(TRUTH.schema.names)
    table = table.sort_by([("series", "ascending"), ("target_time", "ascending")])
    counts = table.group_by(["series", "target_time"], use_threads=False).aggregate([([], "count_all")])
    doubled = counts.filter(pc.greater(counts["count_all"], 1))
    if doubled.num_rows:
        first = doubled.slice(0, 1).to_pylist()[0]
        raise TableError(
            f"{path}: {doubled.num_rows} times have more than one value, the first is "
            f"{first['target_time'].isoformat()} of series {first['series']!r}; "
            "keep one row per series and time"
        )
    return table


def write_predictions(path: Path, frame: pd.DataFrame) -> None:
    """Replace `path` by the predictions table as Parquet; `frame` must have every column.

    Raises:
        TableError: a column is missing or is not of its type.
    """
    with open_table(path, PREDICTIONS) as writer:
        writer.write_table(_shaped(frame, PREDICTIONS, path))


def write_truth(path: Path, frame: pd.DataFrame) -> None:
    """Replace `path` by the truth as Parquet; `frame` has `series, target_time, y`."""
    with open_table(path, TRUTH) as writer:
        writer.write_table(_shaped(frame, TRUTH, path))


@contextmanager
def open_table(path: Path, layout: Layout) -> Iterator[pq.ParquetWriter]:
    """A writer of row groups; the file appears under its name only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, layout.schema, compression="zstd") as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _shaped(frame: pd.DataFrame, layout: Layout, path: Path) -> pa.Table:
    missing = [name for name in layout.schema.names if name not in frame.columns]
    if missing:
        raise TableError(f"{path}: the {layout.noun} to write lack {', '.join(missing)}; add the columns")
    try:
        return pa.Table.from_pandas(
            frame[layout.schema.names], schema=layout.schema, preserve_index=False
        ).replace_schema_metadata(layout.schema.metadata)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(f"{path}: the {layout.noun} cannot be written: {error}") from error


def _load(path: Path, layout: Layout) -> pa.Table:
    """The file's columns that the layout knows, each of its type, with a `series`."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        raw = _read_parquet(path, layout) if magic == b"PAR1" else _read_csv(path, layout)
    except FileNotFoundError as error:
        raise TableError(
            f"{path}: there is no such file; the command must write its {layout.noun} there"
        ) from error
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as CSV or Parquet: {_one_line(error)}") from error
    columns = {
        field.name: _column(raw[field.name], field, path)
        for field in layout.schema
        if field.name in raw.column_names
    }
    if "series" not in columns:
        columns["series"] = pa.repeat(SINGLE_SERIES, raw.num_rows)
    return pa.table(columns)


def _read_parquet(path: Path, layout: Layout) -> pa.Table:
    with pq.ParquetFile(path) as file:
        written = (file.schema_arrow.metadata or {}).get(_VERSION_KEY, b"").decode()
        if written not in ("", layout.version):
            raise TableError(f"{path}: is {written}, but {layout.version} is required; write it again")
        return file.read(columns=_known(file.schema_arrow.names, layout, path))


def _read_csv(path: Path, layout: Layout) -> pa.Table:
    kept = _known(_header(path), layout, path)
    types = {
        field.name: pa.float64() if field.name in ("lead", "y_pred", "y") else pa.string()
        for field in layout.schema
    }
    return pa_csv.read_csv(
        str(path),
        read_options=pa_csv.ReadOptions(use_threads=False),
        convert_options=pa_csv.ConvertOptions(column_types=types, include_columns=kept),
    )


def _header(path: Path) -> list[str]:
    with pa.input_stream(str(path), compression="detect") as stream:
        start = stream.read(_HEADER_BYTES)
    lines = start.decode("utf-8-sig", errors="replace").splitlines()
    if not lines:
        raise TableError(f"{path}: is empty; write a header and one row per forecast or value")
    return next(csv_reader(lines[:1]))


def _known(names: list[str], layout: Layout, path: Path) -> list[str]:
    missing = [name for name in layout.required if name not in names]
    if missing:
        raise TableError(
            f"{path}: lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}; {layout.noun} need "
            f"{', '.join(layout.required)}, and the file has {', '.join(names) or 'none'}"
        )
    doubled = sorted({name for name in layout.schema.names if names.count(name) > 1})
    if doubled:
        raise TableError(f"{path}: has the column {doubled[0]} twice; keep one")
    return [name for name in layout.schema.names if name in names]


def _column(values: pa.ChunkedArray, field: pa.Field, path: Path) -> pa.ChunkedArray:
    if pa.types.is_timestamp(field.type):
        return _times(values, field.name, path)
    if pa.types.is_integer(field.type):
        return _integers(values, field, path)
    try:
        cast = values.cast(field.type)
    except pa.ArrowException as error:
        raise TableError(f"{path}: {field.name} is not {_word(field)}: {_one_line(error)}") from error
    if pa.types.is_floating(field.type):
        return pc.fill_null(cast, float("nan"))
    return _complete(cast, field.name, path)


def _times(values: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return _parsed_times(values, name, path)
    if not (pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)):
        raise TableError(f"{path}: {name} is {values.type}, but times are required; write ISO 8601, UTC")
    zone = getattr(values.type, "tz", None)
    micros = values.cast(pa.timestamp("us", tz=zone), safe=False).cast(_TIME)
    return _complete(micros, name, path)


def _parsed_times(values: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    """ISO 8601 strings as UTC; each distinct string is parsed once."""
    coded = values.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    moments = pd.to_datetime(
        pd.Index(coded.dictionary.to_pylist(), dtype=object), format="ISO8601", utc=True, errors="coerce"
    )
    times = pa.array(moments.as_unit("us"), type=_TIME).take(coded.indices)
    return _complete(pa.chunked_array([times]), name, path, shown=values)


def _integers(values: pa.ChunkedArray, field: pa.Field, path: Path) -> pa.ChunkedArray:
    try:
        numbers = _complete(values.cast(pa.float64()), field.name, path, shown=values)
    except pa.ArrowException as error:
        raise TableError(f"{path}: {field.name} is not {_word(field)}: {_one_line(error)}") from error
    wrong = pc.invert(pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**31)))
    _refuse_first(wrong, values, f"{field.name} is not a whole number", path)
    return numbers.cast(field.type)


def _complete(
    values: pa.ChunkedArray, name: str, path: Path, *, shown: pa.ChunkedArray | None = None
) -> pa.ChunkedArray:
    """`values`, or an error for the first null; `shown` holds what stands in the file."""
    kind = "an ISO 8601 time" if values.type == _TIME else "set"
    _refuse_first(values.is_null(), values if shown is None else shown, f"{name} is not {kind}", path)
    return values


def _refuse_first(wrong: pa.ChunkedArray, values: pa.ChunkedArray, problem: str, path: Path) -> None:
    count = pc.sum(wrong, min_count=0).as_py()
    if count:
        row = pc.index(wrong, True).as_py()
        raise TableError(
            f"{path}: {problem} in {count} of {len(values)} rows, the first is data row {row + 1} "
            f"with {values[row].as_py()!r}; correct the file"
        )


def _word(field: pa.Field) -> str:
    return "text" if pa.types.is_string(field.type) else "a number"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
