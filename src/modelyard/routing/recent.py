"""Prompts of recent requests, from wherever a service keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modelyard.core.errors import RoutingError
from modelyard.routing.answer_table import read_prompts

#: Under which name a record holds its prompt; the first that it has counts.
_FIELDS = ("prompt", "text")
_REMEDY = f"give each record its prompt as {' or '.join(_FIELDS)}"


def read_recent(places: Sequence[Path]) -> list[str]:
    """The prompts of folders with prompts.parquet, of Parquet files and of JSON lines, in turn.

    In a folder an example is one prompt; of a file each record is one, also where prompts are the same.

    Raises:
        TableError: A table of prompts cannot be read or used.
        RoutingError: Another file cannot, or a record has no prompt.
    """
    read = {".jsonl": _of_lines, ".parquet": _of_table}
    return [text for place in places for text in read.get(place.suffix, _of_folder)(place)]


def _of_folder(place: Path) -> list[str]:
    return list(read_prompts([place]).values())


def _of_table(place: Path) -> list[str]:
    try:
        names = pq.read_schema(place).names
        field = next((name for name in _FIELDS if name in names), None)
        if field is None:
            raise RoutingError(f"{place}: has no column {' or '.join(_FIELDS)}; {_REMEDY}")
        texts = pq.read_table(place, columns=[field], partitioning=None)[field].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise RoutingError(f"{place}: cannot be read as Parquet ({error}); write it again") from error
    return [_text(f"{place}: row {row}", text) for row, text in enumerate(texts, 1)]


def _of_lines(place: Path) -> list[str]:
    try:
        lines = place.read_text(encoding="utf-8").split("\n")
        records = [(n, json.loads(line)) for n, line in enumerate(lines, 1) if line.strip()]
    except (OSError, ValueError) as error:
        raise RoutingError(f"{place}: cannot be read as JSON lines ({error}); write it again") from error
    return [_text(f"{place}: line {n}", _prompt(record)) for n, record in records]


def _prompt(record: object) -> object:
    if not isinstance(record, dict):
        return None
    return next((record[name] for name in _FIELDS if name in record), None)


def _text(place: str, value: object) -> str:
    if not isinstance(value, str):
        raise RoutingError(f"{place} has no prompt, or one that is no text; {_REMEDY}")
    return value
