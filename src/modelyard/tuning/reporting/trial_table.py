"""The trials of a study as a table: one row a trial, for CSV, Parquet and JSON files.

Columns are named by what they hold: `objective.NAME`, `metric.NAME`, `param.NAME`. A parameter that did not
count in a trial has no value there. Lists stand as JSON text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.core.files import write_whole
from modelyard.tuning.reporting.insights import seconds_of
from modelyard.tuning.view import StudyView, TrialView

SUFFIXES = (".csv", ".parquet", ".json")


def write_table(view: StudyView, path: Path) -> None:
    """Write the trials by the end of the path.

    Raises:
        TuneError: The path's end is no known format, or its folder is not there.
    """
    if path.suffix not in SUFFIXES:
        raise TuneError(f"{path}: does not end in {' or '.join(SUFFIXES)}; give such a path")
    if not path.parent.is_dir():
        raise TuneError(f"{path.parent}: is not a folder; make it, or give another path")
    if path.suffix == ".json":
        records = [each.record() for each in view.trials]
        write_whole(path, json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    elif path.suffix == ".csv":
        write_whole(path, _csv(columns_of(view)))
    else:
        write_whole(path, _parquet(columns_of(view), path))


def columns_of(view: StudyView) -> dict[str, list[Any]]:
    """The table by columns, each with a cell for every trial; None where there is nothing."""
    trials = view.trials
    columns: dict[str, list[Any]] = {
        "number": [t.trial.number for t in trials],
        "state": [t.trial.state.value for t in trials],
        "source": [t.trial.source for t in trials],
        "budget": [t.trial.budget for t in trials],
        "parent": [t.trial.parent for t in trials],
        "started_at": [t.started_at or None for t in trials],
        "ended_at": [t.ended_at or None for t in trials],
        "seconds": [seconds_of(t) for t in trials],
        "last_step": [max(t.trial.curve, default=None) for t in trials],
        "last_value": [t.trial.curve[max(t.trial.curve)] if t.trial.curve else None for t in trials],
        "cause": [t.trial.cause or None for t in trials],
        "why": [t.trial.why or None for t in trials],
        "job": [t.job or None for t in trials],
    }
    for place, objective in enumerate(view.objectives):
        columns[f"objective.{objective.metric}"] = [t.trial.values[place] if t.trial.values else None
                                                    for t in trials]  # fmt: skip
    for name in _names(trials, "metrics"):
        columns[f"metric.{name}"] = [t.metrics.get(name) for t in trials]
    for name in _names(trials, "assignments"):
        columns[f"param.{name}"] = _plain([t.assignments.get(name) for t in trials])
    return columns


def _names(trials: Sequence[TrialView], field: str) -> list[str]:
    """Every name that a trial has, in the order in which they are first met."""
    return list(dict.fromkeys(name for each in trials for name in getattr(each, field)))


def _plain(cells: Sequence[Any]) -> list[Any]:
    """Cells of one type: lists, and whatever is mixed, become JSON text; integers among floats are floats."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {int, float}:
        return [None if cell is None else float(cell) for cell in cells]
    if len(kinds) <= 1 and not kinds & {list, dict}:
        return list(cells)
    return [None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in cells]


def _csv(columns: dict[str, list[Any]]) -> str:
    buffer = io.StringIO(newline="")
    rows = csv.writer(buffer)
    rows.writerow(columns)
    for cells in zip(*columns.values(), strict=True):
        rows.writerow([json.dumps(cell) if isinstance(cell, bool) else cell for cell in cells])
    return buffer.getvalue()


def _parquet(columns: dict[str, list[Any]], path: Path) -> bytes:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise TuneError(
            f"{path}: cannot be written without pyarrow; install it with pip install 'modelyard[ensemble]'"
        ) from error
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    written: bytes = sink.getvalue().to_pybytes()
    return written
