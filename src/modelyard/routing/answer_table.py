"""Answers and prompts out of the results table (`results/outcomes.py`), as evaluations and imports leave it.

The metric `score` counts, and `confidence` beside it; an error is 1 minus the mean over samples, or of each
row alone where turns are asked for. A row that is not there was never asked, a null cost is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.core.errors import RoutingError
from modelyard.results.outcomes import load_prompts, load_results
from modelyard.routing.answers import Answers, Floats, Integers

_RESULTS, _PROMPTS = "results.parquet", "prompts.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTable:
    """Answers, with the prompts as `answers.examples` names them; both sorted by name."""

    answers: Answers
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The answers of one model, each by itself, in the order of the rows: of time, in service."""

    # The prompt of each, as a column of the `Answers` it was read for, [T].
    columns_t: Integers
    # In [0, 1], [T].
    errors_t: Floats
    # USD, [T]; NaN is "not known".
    costs_usd_t: Floats


def read_answer_table(folders: Sequence[Path]) -> AnswerTable:
    """Read one or several folders with results.parquet and prompts.parquet, or such tables by their path.

    Raises:
        TableError: A table cannot be read or used.
        RoutingError: They do not fit together.
    """
    results = pa.concat_tables([load_results(_results(folder)) for folder in folders])
    scores = results.filter(pc.equal(results["metric"], "score"))
    if not scores.num_rows:
        raise RoutingError(f"{_results(folders[0])}: has no row of the metric score; evaluate the models")
    _refuse_doubled(scores, folders)
    prompts = read_prompts(folders)
    models, rows = np.unique(_texts(scores["model"]), return_inverse=True)
    examples, columns = np.unique(_texts(scores["example_id"]), return_inverse=True)
    lost = next((str(name) for name in examples if str(name) not in prompts), None)
    if lost is not None:
        raise RoutingError(f"{_prompts(folders[0])}: has no prompt of {lost!r}; import the prompts too")
    place, shape = rows * len(examples) + columns, (len(models), len(examples))
    names = tuple(map(str, examples))
    return AnswerTable(
        answers=Answers(
            models=tuple(map(str, models)),
            examples=names,
            errors_mn=1.0 - _means(scores["value"].to_numpy(), place, shape),
            cost_usd_mn=_means(scores["cost_usd"].to_numpy(), place, shape),
        ),
        prompts=tuple(prompts[name] for name in names),
    )


def read_turns(folders: Sequence[Path], answers: Answers) -> dict[str, Turns]:
    """By model of `answers`, which come from the same folders, one turn for each of its rows.

    Raises:
        TableError: A table cannot be read.
    """
    results = pa.concat_tables([load_results(_results(folder)) for folder in folders])
    scores = results.filter(pc.equal(results["metric"], "score"))
    numbers = {example: column for column, example in enumerate(answers.examples)}
    columns = np.array([numbers[example] for example in scores["example_id"].to_pylist()], np.int64)
    errors, costs = 1.0 - scores["value"].to_numpy(), scores["cost_usd"].to_numpy()
    told = _texts(scores["model"])
    return {
        model: Turns(columns_t=columns[own], errors_t=errors[own], costs_usd_t=costs[own])
        for model in answers.models
        for own in [told == model]
    }


def read_confidences(folders: Sequence[Path], answers: Answers) -> Floats:
    """What models told of their own certainty, as `answers` names them, [M, N]; NaN where they told nothing.

    Raises:
        TableError: A table cannot be read.
    """
    results = pa.concat_tables([load_results(_results(folder)) for folder in folders])
    told = results.filter(pc.equal(results["metric"], "confidence"))
    models, examples = (
        {name: i for i, name in enumerate(names)} for names in (answers.models, answers.examples)
    )
    rows = [
        (models[model] * len(examples) + examples[example], value)
        for model, example, value in zip(
            *(told[name].to_pylist() for name in ("model", "example_id", "value")), strict=True
        )
        if model in models and example in examples
    ]
    place = np.array([at for at, _ in rows], np.int64)
    values = np.array([value for _, value in rows], np.float64)
    return _means(values, place, (len(models), len(examples)))


def read_prompts(folders: Sequence[Path]) -> dict[str, str]:
    """The text of each example of one or several folders with prompts.parquet.

    Raises:
        TableError: A table cannot be read.
        RoutingError: An example has two texts.
    """
    found: dict[str, str] = {}
    for folder in folders:
        table = load_prompts(_prompts(folder))
        for example, text in zip(table["example_id"].to_pylist(), table["text"].to_pylist(), strict=True):
            if found.setdefault(example, text) != text:
                raise RoutingError(
                    f"{_prompts(folder)}: {example!r} is another prompt than in a folder before; give each "
                    "prompt an id of its own"
                )
    return found


def _results(place: Path) -> Path:
    """The table of a folder, or the table itself."""
    return place if place.suffix == ".parquet" else place / _RESULTS


def _prompts(place: Path) -> Path:
    """The prompts lie beside the results."""
    return _results(place).with_name(_PROMPTS)


def _texts(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.array(column.to_pylist(), np.str_)


def _means(values: Floats, place: Integers, shape: tuple[int, int]) -> Floats:
    """The mean of the values at each place that are known, [M, N]; NaN where there is none."""
    told, size = ~np.isnan(values), shape[0] * shape[1]
    counts = np.bincount(place[told], minlength=size)
    sums = np.bincount(place[told], weights=values[told], minlength=size)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(shape)


def _refuse_doubled(scores: pa.Table, folders: Sequence[Path]) -> None:
    """One folder has no row twice; several may."""
    key = ["model", "example_id", "sample"]
    counts = scores.group_by(key, use_threads=False).aggregate([([], "count_all")])
    doubled = counts.filter(pc.greater(counts["count_all"], 1)).slice(0, 1).to_pylist()
    if doubled:
        told = ", ".join(f"{name} {doubled[0][name]!r}" for name in key)
        places = ", ".join(map(str, folders))
        raise RoutingError(f"{places}: {told} stands more than once; give it once")
