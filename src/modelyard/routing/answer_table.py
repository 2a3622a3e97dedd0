"""Tables of answers, CSV or Parquet: one row for each model and prompt.

Columns: model, example_id, prompt, score (0 to 1; empty is a failed answer: error 1), cost_usd (empty is
"not known"). A row that is not there was never asked. Others are ignored. Rows count from 1 after the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers, Floats

_TEXTS, _NUMBERS = ("model", "example_id", "prompt"), ("score", "cost_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTable:
    """Answers, with the prompts as `answers.examples` names them; both sorted by name."""

    answers: Answers
    prompts: tuple[str, ...]


def read_answer_table(path: Path) -> AnswerTable:
    """Read and check a table.

    Raises:
        RoutingError: It cannot be read, or a row cannot be used.
    """
    table = _table(path)
    texts = {name: table.column(name).to_pylist() for name in _TEXTS}
    for name, values in texts.items():
        empty = next((row for row, value in enumerate(values) if not value), None)
        if empty is not None:
            raise RoutingError(f"{path}: row {empty + 1}: {name} is empty; fill it in or remove the row")
    scores, costs = (np.array(table.column(name).to_pylist(), np.float64) for name in _NUMBERS)
    _check_numbers(path, scores, costs)
    models, rows = np.unique(np.array(texts["model"], object).astype(str), return_inverse=True)
    examples, columns = np.unique(np.array(texts["example_id"], object).astype(str), return_inverse=True)
    prompts = _prompts(path, texts["example_id"], texts["prompt"])
    _refuse_twice(path, texts["model"], texts["example_id"])
    errors = np.full((len(models), len(examples)), np.nan)
    errors[rows, columns] = np.where(np.isnan(scores), 1.0, 1.0 - scores)
    prices = np.full_like(errors, np.nan)
    prices[rows, columns] = costs
    names = tuple(str(name) for name in examples)
    return AnswerTable(
        answers=Answers(
            models=tuple(str(name) for name in models), examples=names, errors_mn=errors, cost_usd_mn=prices
        ),
        prompts=tuple(prompts[name] for name in names),
    )


def _table(path: Path) -> pa.Table:
    fields = {**dict.fromkeys(_TEXTS, pa.string()), **dict.fromkeys(_NUMBERS, pa.float64())}
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
        else:
            table = pa_csv.read_csv(
                path,
                parse_options=pa_csv.ParseOptions(newlines_in_values=True),
                convert_options=pa_csv.ConvertOptions(column_types=fields),
            )
        missing = [name for name in fields if name not in table.column_names]
        if missing:
            raise RoutingError(
                f"{path}: there is no column {', '.join(missing)}; the columns are {', '.join(fields)}"
            )
        table = table.select(list(fields)).cast(pa.schema(fields))
    except (pa.ArrowException, OSError) as error:
        raise RoutingError(
            f"{path}: cannot be read as a table of answers ({error}); give CSV or Parquet with the columns "
            f"{', '.join(fields)}"
        ) from error
    if not table.num_rows:
        raise RoutingError(f"{path}: there is no row; give one for each model and prompt")
    return table


def _check_numbers(path: Path, scores: Floats, costs: Floats) -> None:
    bad = np.flatnonzero((scores < 0) | (scores > 1))
    if bad.size:
        raise RoutingError(
            f"{path}: row {bad[0] + 1}: the score {scores[bad[0]]:g} is not within 0 and 1; rescale"
        )
    bad = np.flatnonzero((costs < 0) | np.isinf(costs))
    if bad.size:
        raise RoutingError(
            f"{path}: row {bad[0] + 1}: the cost {costs[bad[0]]:g} USD is no price; give at least 0, or "
            "leave it empty where it is not known"
        )


def _prompts(path: Path, examples: list[str], prompts: list[str]) -> dict[str, str]:
    """The prompt of each example, which must be one."""
    found: dict[str, str] = {}
    for row, (example, prompt) in enumerate(zip(examples, prompts, strict=True), start=1):
        if found.setdefault(example, prompt) != prompt:
            raise RoutingError(
                f"{path}: row {row}: {example!r} has another prompt than in a row before; give each prompt "
                "an id of its own"
            )
    return found


def _refuse_twice(path: Path, models: list[str], examples: list[str]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for row, pair in enumerate(zip(models, examples, strict=True), start=1):
        if (first := seen.setdefault(pair, row)) != row:
            raise RoutingError(
                f"{path}: row {row}: {pair[0]!r} answers {pair[1]!r} as in row {first} already; keep one"
            )
