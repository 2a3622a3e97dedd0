"""Sample logs of lm-evaluation-harness: `MODEL/samples_TASK_DATE.jsonl`, one JSON object a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelyard.core.errors import TableError
from modelyard.results.importers import Record, read_json_text

_NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.:\-]+)?")
_FIRST = ("acc", "exact_match", "acc_norm", "pass@1", "f1")


def read_lm_eval(path: Path, model: str | None) -> Iterator[Record]:
    """The samples of a log; the model is the folder's name unless it is given.

    The main metric of the first filter (acc, exact_match, ...) is `score`; the others keep their names.

    Raises:
        TableError: the file is not such a log.
    """
    named = _NAME.fullmatch(path.stem)
    task = named["task"] if named else path.stem
    name = model or path.resolve().parent.name
    first_filter: str | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}: line {number}"
            sample = read_json_text(line, place)
            chosen = str(sample.get("filter", "none"))
            first_filter = chosen if first_filter is None else first_filter
            yield from _records(sample, place, (name, task), "" if chosen == first_filter else f",{chosen}")


def _records(sample: dict[str, Any], place: str, source: tuple[str, str], suffix: str) -> Iterator[Record]:
    if "doc_id" not in sample:
        raise TableError(f"{place}: has no doc_id; give a samples_*.jsonl of lm-eval (--log_samples)")
    metrics = sample.get("metrics") or [each for each in _FIRST if each in sample]
    numbers = {
        str(m): float(sample[m]) for m in metrics if isinstance(sample.get(m), int | float)
    }  # fmt: skip
    if not numbers:
        raise TableError(f"{place}: has no metric that is a number; run the task with one, such as acc")
    main = next((each for each in _FIRST if each in numbers), next(iter(numbers)))
    for metric, value in numbers.items():
        row = {
            "model": source[0],
            "example_id": f"{source[1]}/{sample['doc_id']}",
            "metric": f"{metric}{suffix}" if suffix or metric != main else "score",
            "value": value,
            "scorer": f"lm-eval:{metric}",
        }
        content = f"{source[1]}/{sample['doc_hash']}" if sample.get("doc_hash") else ""
        yield Record(row=row, prompt=_prompt(sample), content=content, place=place)


def _prompt(sample: dict[str, Any]) -> str:
    arguments = sample.get("arguments")
    first = arguments.get("gen_args_0", {}) if isinstance(arguments, dict) else arguments
    if isinstance(first, dict):
        return str(first.get("arg_0", ""))
    while isinstance(first, list) and first:
        first = first[0]
    return first if isinstance(first, str) else ""
