"""Sample logs of lm-evaluation-harness: `MODEL/samples_TASK_DATE.jsonl`, one JSON object a line.

A line is one document under one filter. The log does not name its model; the file of the averages
that the same run wrote beside it, `results_DATE.json`, does.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from modelyard.core.errors import TableError
from modelyard.results.importers import Record, message_text, read_json_text

_NAME = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:\-]+))?")
_FIRST = ("acc", "exact_match", "acc_norm", "pass@1", "pass_at_1", "f1")


def read_lm_eval(path: Path, model: str | None) -> Iterator[Record]:
    """The samples of a log; the model is the run's or else the folder's name unless it is given.

    The main metric (acc, exact_match, ...) of the first filter is `score`; the others keep their names, in
    another filter as `exact_match,loose`. A sample without its main metric scores 0 with an error.

    Raises:
        TableError: the file is not such a log.
    """
    if path.name.startswith("results_"):
        raise TableError(f"{path}: holds averages only; give samples_*.jsonl of lm-eval (--log_samples)")
    named = _NAME.fullmatch(path.stem)
    name = model or _model_beside(path, named["date"] if named else None) or path.resolve().parent.name
    log = _Log(name, named["task"] if named else path.stem)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path}: line {number}"
                yield from log.records(read_json_text(line, place), place)


def _model_beside(path: Path, date: str | None) -> str | None:
    """The model's name in the averages of the same run."""
    for beside in sorted(path.parent.glob(f"*_{date}.json")) if date else ():
        name = read_json_text(beside.read_bytes(), str(beside)).get("model_name")
        if isinstance(name, str) and name:
            return name
    return None


class _Log:
    """One log while it is read: its first line settles the main metric and the first filter."""

    def __init__(self, model: str, task: str) -> None:
        self._model = model
        self._task = task
        self._main: str | None = None
        self._filter = ""

    def records(self, sample: dict[str, Any], place: str) -> Iterator[Record]:
        """The rows of one line."""
        doc = sample.get("doc_id")
        if isinstance(doc, bool) or not isinstance(doc, int | str):
            raise TableError(f"{place}: has no doc_id; give a samples_*.jsonl of lm-eval (--log_samples)")
        chosen, numbers = str(sample.get("filter", "none")), _numbers(sample, place)
        if self._main is None:
            self._main, self._filter = _main_metric(numbers, place), chosen
        prompt = _prompt(sample.get("arguments"))
        question = _question(sample, prompt)
        common = {"model": self._model, "example_id": f"{self._task}/{doc}"}
        content = f"{self._task}/{question}" if question else ""
        for row in self._rows(numbers, chosen, place):
            yield Record(row={**common, **row}, prompt=prompt, content=content, place=place)

    def _rows(self, numbers: Mapping[str, float | None], chosen: str, place: str) -> Iterator[dict[str, Any]]:
        suffix = "" if chosen == self._filter else f",{chosen}"
        for metric, value in {str(self._main): None, **numbers}.items():
            scorer = f"lm-eval:{metric}"
            row = {"metric": f"{metric}{suffix}", "value": value, "scorer": scorer}
            if row["metric"] == "score":  # a metric of this name, and not the main one
                row["metric"] = scorer
            if metric == self._main and value is None:
                row |= {"value": 0.0, "error": f"the log has no number for {metric}"}
            if metric == self._main and not suffix:
                row["metric"] = "score"
                if not 0 <= (value or 0.0) <= 1:
                    raise TableError(
                        f"{place}: {metric} is {value}, but a score lies in [0, 1]; "
                        "leave this log out or run the task with a metric such as acc"
                    )
            if row["value"] is not None:
                yield row


def _numbers(sample: Mapping[str, Any], place: str) -> dict[str, float | None]:
    """The metrics that are one number each, None where it is missing; a metric over pairs is a list."""
    metrics = sample.get("metrics") or [each for each in _FIRST if each in sample]
    if not isinstance(metrics, list) or not all(isinstance(each, str) for each in metrics):
        raise TableError(f"{place}: metrics is {metrics!r}, not a list of names; give the log as written")
    return {
        each: _number(sample.get(each))
        for each in metrics
        if isinstance(sample.get(each), int | float | None)
    }


def _number(value: float | None) -> float | None:
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:  # a whole number beyond a float
        return None


def _main_metric(numbers: Mapping[str, float | None], place: str) -> str:
    if all(value is None for value in numbers.values()):
        raise TableError(
            f"{place}: has no metric that is a number; leave this log out or "
            "run the task with one, such as acc"
        )
    known = [each for each in _FIRST if each in numbers]
    return next(iter(known + [each for each in numbers if "acc" in each] + list(numbers)))


def _question(sample: Mapping[str, Any], prompt: str) -> str:
    """lm-eval's digest of the document; logs before it was written have the document itself."""
    told = sample.get("doc_hash")
    if isinstance(told, str) and told:
        return told
    text = json.dumps(sample["doc"], indent=2, ensure_ascii=False) if sample.get("doc") else prompt
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _prompt(arguments: object) -> str:
    """What stands before the answer: where each choice has its own context, what they begin with."""
    given = list(arguments.values()) if isinstance(arguments, dict) else arguments
    contexts = [_context(each) for each in given] if isinstance(given, list) else []
    told = [each for each in dict.fromkeys(contexts) if each.strip()]
    if len(told) < 2:
        return "".join(told)
    words = zip(*(re.findall(r"\s*\S+", each) for each in told), strict=False)
    return "".join(same[0] for same in takewhile(lambda each: len(set(each)) == 1, words)) or told[0]


def _context(given: object) -> str:
    """The first argument of a request: text, or the messages of a chat as JSON in a list."""
    first = given.get("arg_0") if isinstance(given, dict) else given
    chat = isinstance(given, dict) and isinstance(first, list)
    while isinstance(first, list) and first:
        chat, first = chat or isinstance(first[0], list), first[0]
    if not isinstance(first, str):
        return ""
    try:
        return (message_text(json.loads(first)) if chat else "") or first
    except (ValueError, RecursionError):
        return first
