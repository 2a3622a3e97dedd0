"""What the benchmark of merging's use is about: families of fine-tunes of one start, and their scores.

Records only, and how scores of domains become a mean. Knows neither models nor merges.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: Domain ("mean" among them) -> measure ("loss" and others) -> value.
Scores = dict[str, dict[str, float]]
SPLITS = ("val", "test")
MEAN = "mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Checkpoints that start from one base; every name is a folder below `home`."""

    home: Path
    # Families of the same design differ by their seed and share a table.
    design: str
    base: str
    specialists: tuple[str, ...]
    # Trained on all domains at once: what merging could reach at best.
    joint: str
    domains: tuple[str, ...]
    # As good as the base, but from another initialisation; empty where there is none.
    unrelated: str = ""
    # Whether weights are searched for, beside the fixed recipes.
    searched: bool = True

    @property
    def parents(self) -> tuple[str, ...]:
        """The checkpoints that a merge has to beat."""
        return (self.base, *self.specialists)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One kind of model with its data, and how it is made and measured."""

    script: Path
    title: str
    domains: tuple[str, ...]
    # Shown in tables, the first one decides: name -> whether higher is better.
    measures: Mapping[str, bool]
    make: Callable[[Path, int], None]
    families: Callable[[Path], list[Family]]
    measure: Callable[[Path, str, Iterable[str]], Scores]
    # What a report adds about the data.
    note: str


def with_mean(scores: Mapping[str, Mapping[str, float]]) -> Scores:
    """Domain scores and their mean; perplexity's mean is that of the mean loss (a geometric mean)."""
    measures = next(iter(scores.values()))
    mean = {name: statistics.fmean(domain[name] for domain in scores.values()) for name in measures}
    if "perplexity" in mean:
        mean["perplexity"] = math.exp(mean["loss"])
    return {**{name: dict(domain) for name, domain in scores.items()}, MEAN: mean}


def best(values: Iterable[float], *, higher: bool) -> float:
    """The best of them."""
    return max(values) if higher else min(values)
