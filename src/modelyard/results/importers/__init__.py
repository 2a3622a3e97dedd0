"""Logs of other tools as the results table: what all importers share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_bytes
from modelyard.core.errors import TableError
from modelyard.results.outcomes import write_prompts, write_results
from modelyard.results.scramble import warnings_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row to be: columns of the results table, the prompt, and what tells equal questions."""

    row: Mapping[str, Any]
    prompt: str = ""
    # Equal for the same question whatever its id or its model's chat template; else the prompt's digest.
    content: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was written, and what looks wrong with it."""

    rows: int
    models: tuple[str, ...]
    examples: int
    warnings: tuple[str, ...] = field(default=())


def write_import(records: Iterable[Record], output: Path) -> Imported:
    """Write `results.parquet` and `prompts.parquet` into a folder.

    Equal questions get one id, the first; one id with two different questions is refused.

    Raises:
        TableError: nothing to write, doubled rows, values out of range, clashing ids.
    """
    ids: dict[str, str] = {}
    contents: dict[str, str] = {}
    texts: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for record in records:
        given = str(record.row["example_id"])
        content = record.content or (digest_bytes(record.prompt.encode()) if record.prompt else "")
        example = ids.setdefault(content, given) if content else given
        if content and contents.setdefault(example, content) != content:
            raise TableError(
                f"{record.place}: example {given!r} is two different questions; give each its id"
            )
        if record.prompt:
            texts.setdefault(example, record.prompt)
        rows.append({**record.row, "example_id": example})
    if not rows:
        raise TableError(f"{output}: there is nothing to import; give logs with at least one sample")
    write_results(output / "results.parquet", rows)
    write_prompts(output / "prompts.parquet", ({"example_id": k, "text": v} for k, v in texts.items()))
    return Imported(
        rows=len(rows),
        models=tuple(sorted({str(row["model"]) for row in rows})),
        examples=len({row["example_id"] for row in rows}),
        warnings=tuple(warnings_of(rows)),
    )


def read_json_text(text: str | bytes, place: str) -> dict[str, Any]:
    """The JSON object in a text; raises `TableError` where it is none."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be stored
    except (ValueError, RecursionError) as error:
        raise TableError(f"{place}: is not JSON ({error}); give the log as it was written") from error
    if not isinstance(value, dict):
        raise TableError(f"{place}: is not a JSON object; give the log as it was written")
    return value


def message_text(messages: object) -> str:
    """What the messages of a chat say, a blank line between two; "" where there are none."""
    said = (_content_text(each.get("content")) for each in _objects(messages))
    return "\n\n".join(text for text in said if text)


def _content_text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = (each.get("text") for each in _objects(content))
    return "\n".join(part for part in parts if isinstance(part, str))


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
