"""The results table: what every model made of every example; and the table of the prompts.

One row of results is one model, example, sample and metric. A cost that nobody knows is null, never
zero. Both tables are Parquet with the name and version of their schema in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modelyard.core.errors import TableError
from modelyard.results.tables import Layout, open_table

_VERSION_KEY = b"modelyard.schema"
_KEY = ("model", "example_id", "sample", "metric")
_TEXTS = ("run_id", "model", "model_digest", "set_digest", "split", "example_id", "group_id")


def _schema(version: str, fields: list[tuple[str, pa.DataType]], required: Iterable[str]) -> pa.Schema:
    wanted = set(required)
    return pa.schema(
        [pa.field(name, kind, nullable=name not in wanted) for name, kind in fields],
        metadata={_VERSION_KEY: version.encode()},
    )


_RESULT_REQUIRED = ("schema", "model", "example_id", "sample", "metric", "value")
RESULTS = Layout(
    noun="results",
    schema=_schema(
        "modelyard.results/1",
        [
            ("schema", pa.string()),
            *((name, pa.string()) for name in _TEXTS),
            ("sample", pa.int32()),
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("scorer", pa.string()),
            ("scorer_version", pa.string()),
            ("weight", pa.float64()),
            ("critical", pa.bool_()),
            ("cost_usd", pa.float64()),
            ("latency_s", pa.float64()),
            ("prompt_tokens", pa.int64()),
            ("completion_tokens", pa.int64()),
            ("output_digest", pa.string()),
            ("error", pa.string()),
        ],
        _RESULT_REQUIRED,
    ),
    required=_RESULT_REQUIRED,
)
_PROMPT_COLUMNS = ("set_digest", "example_id", "split", "text")
PROMPTS = Layout(
    noun="prompts",
    schema=_schema(
        "modelyard.prompts/1", [(n, pa.string()) for n in _PROMPT_COLUMNS], ("example_id", "text")
    ),
    required=_PROMPT_COLUMNS,
)


def write_results(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by the results; a key that a row lacks is null, `weight` 1 and `critical` false.

    Raises:
        TableError: as `load_results`.
    """
    defaults = {"schema": RESULTS.version, "sample": 0, "metric": "score", "weight": 1.0, "critical": False}
    table = _from_rows(path, [{**defaults, **row} for row in rows], RESULTS)
    _check_results(path, table)
    with open_table(path, RESULTS) as writer:
        writer.write_table(table)


def load_results(path: Path) -> pa.Table:
    """The results in a Parquet file.

    Raises:
        TableError: it cannot be read, lacks a column, or a value cannot be right.
    """
    table = _read(path, RESULTS)
    _check_results(path, table)
    return table


def write_prompts(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by the prompts; raises `TableError` as `load_prompts`."""
    table = _from_rows(path, list(rows), PROMPTS)
    _refuse_doubled(path, table, ("example_id",))
    with open_table(path, PROMPTS) as writer:
        writer.write_table(table)


def load_prompts(path: Path) -> pa.Table:
    """The prompts in a Parquet file; raises `TableError` where it is not one, or an example stands twice."""
    table = _read(path, PROMPTS)
    _refuse_doubled(path, table, ("example_id",))
    return table


def _from_rows(path: Path, rows: list[dict[str, Any]] | list[Mapping[str, Any]], layout: Layout) -> pa.Table:
    unknown = sorted({name for row in rows for name in row} - set(layout.schema.names))
    if unknown:
        raise TableError(f"{path}: {layout.noun} have no column {', '.join(unknown)}; leave it out")
    try:
        columns = {f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in layout.schema}
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise TableError(
            f"{path}: the {layout.noun} cannot be written: {error}; correct the value"
        ) from error
    table = pa.table(columns, schema=layout.schema)
    _refuse_nulls(path, table, layout)
    return table


def _read(path: Path, layout: Layout) -> pa.Table:
    try:
        table = pq.read_table(path, partitioning=None)
    except FileNotFoundError as error:
        raise TableError(f"{path}: there is no such file; give a table of {layout.noun}") from error
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as Parquet: {error}; write it again") from error
    written = (table.schema.metadata or {}).get(_VERSION_KEY, b"").decode(errors="replace")
    if written not in ("", layout.version):
        raise TableError(f"{path}: is {written}, but {layout.version} is required; write it again")
    missing = [name for name in layout.schema.names if name not in table.column_names]
    if missing:
        raise TableError(f"{path}: lacks {', '.join(missing)}; {layout.noun} need every column")
    doubled = sorted({n for n in layout.schema.names if table.column_names.count(n) > 1})
    if doubled:
        raise TableError(f"{path}: has the column {doubled[0]} twice; keep one")
    try:
        table = pa.table({f.name: table[f.name].cast(f.type) for f in layout.schema})
    except pa.ArrowException as error:
        raise TableError(f"{path}: a column is not of its type: {error}; write it again") from error
    _refuse_nulls(path, table, layout)
    return table.cast(layout.schema)


def _refuse_nulls(path: Path, table: pa.Table, layout: Layout) -> None:
    for field in layout.schema:
        if not field.nullable and table[field.name].null_count:
            row = pc.index(table[field.name].is_null(), True).as_py()
            raise TableError(f"{path}: {field.name} is missing in row {row + 1}; give it a value")


def _check_results(path: Path, table: pa.Table) -> None:
    values = table["value"]
    scored = pc.equal(table["metric"], "score")
    outside = pc.and_(scored, pc.invert(pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1))))
    _refuse(path, table, pc.or_(outside, pc.invert(pc.is_finite(values))), "value", "a score lies in [0, 1]")
    for name in ("weight", "cost_usd", "latency_s", "prompt_tokens", "completion_tokens"):
        column = table[name].cast(pa.float64())
        wrong = pc.fill_null(pc.or_(pc.less(column, 0), pc.invert(pc.is_finite(column))), False)
        _refuse(path, table, wrong, name, "it must be finite and at least 0, or null where it is unknown")
    other = pc.not_equal(table["schema"], RESULTS.version)
    _refuse(path, table, other, "schema", f"{RESULTS.version} is required")
    _refuse_doubled(path, table, _KEY)


def _refuse(path: Path, table: pa.Table, wrong: pa.ChunkedArray, name: str, remedy: str) -> None:
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        raise TableError(f"{path}: {name} is {table[name][row].as_py()!r} in row {row + 1}; {remedy}")


def _refuse_doubled(path: Path, table: pa.Table, key: tuple[str, ...]) -> None:
    counts = table.group_by(list(key), use_threads=False).aggregate([([], "count_all")])
    doubled = counts.filter(pc.greater(counts["count_all"], 1))
    if doubled.num_rows:
        first = doubled.slice(0, 1).to_pylist()[0]
        named = ", ".join(f"{name} {first[name]!r}" for name in key)
        raise TableError(f"{path}: {doubled.num_rows} rows stand more than once, such as {named}; keep one")
