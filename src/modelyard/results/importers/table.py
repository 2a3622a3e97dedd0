"""A CSV in long form: `model, example_id, score`, and any of the other columns of the results table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from modelyard.core.errors import TableError
from modelyard.results.importers import Record
from modelyard.results.outcomes import RESULTS

_REQUIRED = ("model", "example_id", "score")


def read_csv_table(path: Path) -> Iterator[Record]:
    """The rows of a CSV; `prompt` is optional, an empty score is a failed answer, an empty cost unknown.

    Raises:
        TableError: it cannot be read, lacks a column or has one that nobody knows.
    """
    types = {field.name: field.type for field in RESULTS.schema if field.name not in ("schema", "value")}
    types |= {"score": pa.float64(), "prompt": pa.string()}
    try:
        table = pa_csv.read_csv(
            str(path),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=types),
        )
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as CSV ({error}); correct the file") from error
    missing = [name for name in _REQUIRED if name not in table.column_names]
    unknown = [name for name in table.column_names if name not in types]
    if missing or unknown:
        raise TableError(
            f"{path}: lacks {', '.join(missing) or 'nothing'}, has unknown {', '.join(unknown) or 'none'}; "
            f"the columns are {', '.join(_REQUIRED)} and any of {', '.join(n for n in types)}"
        )
    for number, row in enumerate(table.to_pylist(), 2):
        row["value"], prompt = row.pop("score"), row.pop("prompt", None)
        kept = {name: value for name, value in row.items() if value not in (None, "")}
        if "model" not in kept or "example_id" not in kept:
            raise TableError(f"{path}: line {number}: model or example_id is empty; fill it in")
        if "value" not in kept:
            kept = {"error": "no answer", **kept, "value": 0.0}
        yield Record(row=kept, prompt=prompt or "", place=f"{path}: line {number}")
