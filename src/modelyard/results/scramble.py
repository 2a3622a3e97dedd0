"""Whether a model's rows look shuffled: its scores agree with nobody's while the others agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

import numpy as np

_LEAST_MODELS, _LEAST_ITEMS = 3, 50
_LOW, _OTHERS = 0.05, 0.2


def warnings_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A warning for each model whose scores look shuffled against the rest of the pool."""
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get("metric", "score") == "score" and not row.get("sample"):
            scores.setdefault(str(row["model"]), {})[str(row["example_id"])] = float(row["value"])
    found = item_total(scores)
    told = []
    for model, value in found.items():
        others = median([each for name, each in found.items() if name != model] or [0.0])
        if value < _LOW and others > _OTHERS:
            told.append(
                f"{model}: its scores correlate {value:.2f} with the rest of the pool, the others' median is "
                f"{others:.2f}; its rows may be shuffled or joined to the wrong examples: check the ids"
            )
    return told


def item_total(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each model's correlation with the mean of the others, over the examples that all share."""
    if len(scores) < _LEAST_MODELS:
        return {}
    shared = sorted(set.intersection(*(set(each) for each in scores.values())))
    if len(shared) < _LEAST_ITEMS:
        return {}
    table = np.array([[each[item] for item in shared] for each in scores.values()])
    rest = table.sum(axis=0) - table
    return {
        name: float(np.corrcoef(own, others)[0, 1])
        for name, own, others in zip(scores, table, rest, strict=True)
        if own.std() > 0 and others.std() > 0
    }
