"""Logs of other tools as the results table: what all importers share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What a model answered: the id and sample as given, and the example that the id is taken for."""

    model: str
    example: str
    given: str
    sample: int


def write_import(records: Iterable[Record], output: Path) -> Imported:
    """Write `results.parquet` and `prompts.parquet` into a folder.

    Equal questions get one id, the first; one id with two different questions is refused. Where a model was
    asked a question under several ids, the answers under the first one keep their sample numbers, and those
    under the others get the next free ones; an answer that stands twice under one id is refused.

    Raises:
        TableError: nothing to write, doubled rows, values out of range, clashing ids.
    """
    ids: dict[str, str] = {}
    contents: dict[str, str] = {}
    texts: dict[str, str] = {}
    found: dict[tuple[_Answer, str], Mapping[str, Any]] = {}
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
        answer = _Answer(
            model=str(record.row["model"]), example=example, given=given, sample=record.row.get("sample", 0)
        )
        metric = str(record.row.get("metric", "score"))
        if (answer, metric) in found:
            raise TableError(
                f"{record.place}: rows of model {answer.model!r}, example {given!r}, sample {answer.sample}, "
                f"metric {metric!r} stand more than once; keep one"
            )
        found[answer, metric] = record.row
    if not found:
        raise TableError(f"{output}: there is nothing to import; give logs with at least one sample")
    numbers = _sample_numbers(answer for answer, _ in found)
    rows = [
        {**row, "example_id": answer.example, "sample": numbers[answer]} for (answer, _), row in found.items()
    ]
    write_results(output / "results.parquet", rows)
    write_prompts(output / "prompts.parquet", ({"example_id": k, "text": v} for k, v in texts.items()))
    return Imported(
        rows=len(rows),
        models=tuple(sorted({str(row["model"]) for row in rows})),
        examples=len({row["example_id"] for row in rows}),
        warnings=tuple(warnings_of(rows)),
    )


def _sample_numbers(answers: Iterable[_Answer]) -> dict[_Answer, int]:
    """Which sample of its example each answer is; an answer with several metrics comes several times."""
    asked: dict[tuple[str, str], dict[_Answer, None]] = {}
    for answer in answers:
        asked.setdefault((answer.model, answer.example), {})[answer] = None
    numbers: dict[_Answer, int] = {}
    for told in asked.values():
        first = next(iter(told)).given
        numbers |= {each: each.sample for each in told if each.given == first}
        taken = {each.sample for each in told if each.given == first}
        free = (number for number in count() if number not in taken)
        numbers |= {each: next(free) for each in told if each.given != first}
    return numbers


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
