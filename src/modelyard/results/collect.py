"""Joining the models' own prediction files into one sorted predictions table beside its truth.

One model is in memory at a time; the table is sorted by model, series, origin and lead, so the
same inputs give the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.errors import TableError
from modelyard.core.faults import Section, json_section
from modelyard.results.tables import PREDICTIONS, TRUTH, load_predictions, load_truth, open_table

_ORDER = [("series", "ascending"), ("origin", "ascending"), ("lead", "ascending")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One model and the file that its predict command wrote."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectSpec:
    """What to join, and where the two tables go."""

    models: tuple[Source, ...]
    truth: Path
    predictions_out: Path
    truth_out: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """How many rows were written: per model, and of the truth."""

    rows: dict[str, int]
    truth_rows: int

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def read_spec(path: Path) -> CollectSpec:
    """The spec in a JSON file; relative paths start at its folder.

    Raises:
        DocumentError: the file is not JSON, or holds the faults listed.
    """
    section = json_section(path)
    faults = section.faults
    folder = path.parent
    models = tuple(_source(item, folder) for item in section.sections("models"))
    names = [model.name for model in models]
    if not models:
        faults.add("models", None, "is empty", "name at least one model with its predictions file")
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add("models", name, "is named twice", "give each model its own name")
    spec = CollectSpec(
        models=models,
        truth=folder / section.text("truth"),
        predictions_out=folder / section.text("predictions_out"),
        truth_out=folder / section.text("truth_out"),
    )
    section.close()
    faults.raise_if_any()
    return spec


def collect(spec: CollectSpec) -> Collected:
    """Write both tables; when any input cannot be used, neither is touched.

    Raises:
        TableError: an input cannot be read or is not a table of its kind.
    """
    truth = load_truth(spec.truth)
    rows: dict[str, int] = {}
    with open_table(spec.truth_out, TRUTH) as truth_writer:
        truth_writer.write_table(truth.cast(TRUTH.schema))
        with open_table(spec.predictions_out, PREDICTIONS) as writer:
            for model in sorted(spec.models, key=lambda source: source.name):
                rows[model.name] = _append(writer, model)
    return Collected(rows=rows, truth_rows=truth.num_rows)


def _append(writer: pq.ParquetWriter, model: Source) -> int:
    table = load_predictions(model.path)
    if table.num_rows == 0:
        raise TableError(f"{model.path}: holds no forecast of model {model.name!r}; leave the model out")
    columns = {name: table[name] for name in PREDICTIONS.schema.names if name != "model"}
    named = pa.table({"model": pa.repeat(model.name, table.num_rows), **columns})
    writer.write_table(named.sort_by(_ORDER).cast(PREDICTIONS.schema))
    return int(table.num_rows)


def _source(section: Section, folder: Path) -> Source:
    source = Source(name=section.text("name"), path=folder / section.text("path"))
    section.close()
    return source
