"""The greedy soup: fine-tunes of one start are averaged, as long as a validation measure does not suffer.

Wortsman et al., Model soups, ICML 2022 (arXiv 2203.05482), Recipe 1. Models are taken in the order of
their own measures; each is added to the average where that is then no worse. A soup is searched as a
merge whose free values say of each model whether it takes part; nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults
from modelyard.merging.config import load_documents, parse_recipes
from modelyard.merging.search_space import Coordinate, Entry, SearchSpace, TrialResult

#: The name of this way to propose candidates, beside Optuna's samplers.
GREEDY = "greedy"
_OUT, _IN = "0", "1"

#: Which models take part, by their places in the file.
Soup = frozenset[int]


def read_soup(path: Path) -> SearchSpace:
    """The space of a file that lists `models`, two or more; its method is `linear`, its weights are free.

    Raises:
        DocumentError: With the faults of the file.
    """
    (document, *more), faults = load_documents(path), Faults(file=str(path))
    models = document.get("models")
    if more:
        faults.add("", None, "has several documents", "give a file with one merge")
    if document.get("merge_method", "linear") != "linear":
        remedy = "set merge_method: linear, or remove the key"
        faults.add("merge_method", document["merge_method"], "is not an average", remedy)
    if not isinstance(models, list) or len(models) < 2 or not all(isinstance(m, dict) for m in models):
        faults.add("models", models, "is not a list of two or more models", "list what may go into the soup")
        raise DocumentError(faults.found)
    for i, model in enumerate(models):
        if "weight" in (model.get("parameters") or {}):
            key = f"models[{i}].parameters.weight"
            faults.add(key, model["parameters"]["weight"], "is given", "remove it: the soup finds it")
    faults.raise_if_any()
    full = [{**model, "parameters": {**(model.get("parameters") or {}), "weight": 1}} for model in models]
    recipe = yaml.safe_dump({**document, "merge_method": "linear", "models": full}, sort_keys=False)
    parse_recipes(recipe, file=str(path))
    return SearchSpace(path=path, recipe=recipe, entries=tuple(map(_entry, range(len(models)))))


def soup_point(soup: Soup, count: int) -> dict[str, Coordinate]:
    """The point of a soup among `count` models."""
    return {_entry(i).key: _IN if i in soup else _OUT for i in range(count)}


def soup_of(assignments: Mapping[str, object]) -> Soup:
    """The soup of a candidate."""
    return frozenset(i for i in range(len(assignments)) if assignments[_entry(i).key] == 1)


def next_soup(trials: Sequence[TrialResult], *, started: int, count: int, direction: str) -> Soup | None:
    """What is to be measured next; None where that waits for a trial, or nothing is left.

    First every model alone, then all together (for comparison), then the greedy additions.

    Args:
        trials: Those that have ended.
        started: How many there are, ended or not.
        count: How many models.
        direction: `minimize` or `maximize`.
    """
    if started < count:
        return frozenset({started})
    if started == count:
        return frozenset(range(count))
    if len(trials) < started:
        return None
    return _grown(trials, direction)[1]


def best_soup(trials: Sequence[TrialResult], direction: str) -> TrialResult | None:
    """The trial of the greedy soup as far as it has grown; None where no model alone could be measured."""
    soup = _grown(trials, direction)[0]
    return next((trial for trial in trials if soup_of(trial.assignments) == soup), None)


def _grown(trials: Sequence[TrialResult], direction: str) -> tuple[Soup, Soup | None]:
    """The soup so far, and the first addition to it that has not been tried."""
    sign = 1.0 if direction == "minimize" else -1.0
    tried = {soup_of(t.assignments): None if t.value is None else sign * t.value for t in trials}
    alone = sorted(
        (value, model)
        for soup, value in tried.items()
        if len(soup) == 1 and value is not None
        for model in soup
    )
    soup: Soup = frozenset()
    best = float("inf")
    for _, model in alone:
        larger = soup | {model}
        if larger not in tried:
            return soup, larger
        value = tried[larger]
        if value is not None and value <= best:
            soup, best = larger, value
    return soup, None


def _entry(i: int) -> Entry:
    return Entry(key=f"models.{i}.parameters.weight", choices=(_OUT, _IN))
