"""What is known of a pool: which model erred on which prompt, and what each answer cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import RoutingError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers of M models to N prompts, ragged where a model was not asked."""

    models: tuple[str, ...]
    examples: tuple[str, ...]
    # Errors in [0, 1], [M, N]; a failed or missing answer is 1, NaN is "never asked".
    errors_mn: Floats
    # USD of each answer, [M, N]; NaN is "not known", which is not free.
    cost_usd_mn: Floats

    def __post_init__(self) -> None:
        shape = (len(self.models), len(self.examples))
        if self.errors_mn.shape != shape or self.cost_usd_mn.shape != shape:
            raise RoutingError(
                f"answers of {shape[0]} models to {shape[1]} prompts have errors {self.errors_mn.shape} and "
                f"costs {self.cost_usd_mn.shape}; give one row a model and one column a prompt"
            )
        for what, names in (("model", self.models), ("prompt", self.examples)):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise RoutingError(f"{what} {twice!r} stands twice among the answers; keep one of the two")
        asked = self.errors_mn[~np.isnan(self.errors_mn)]
        if asked.size and (asked.min() < 0 or asked.max() > 1):
            raise RoutingError(
                f"errors from {asked.min():g} to {asked.max():g} are not within 0 and 1; "
                "give 1 minus the score"
            )

    def of_models(self, rows: Sequence[int] | Integers) -> Answers:
        """The answers of some models, in this order."""
        rows = np.asarray(rows, np.int64)
        return Answers(
            models=tuple(self.models[int(row)] for row in rows),
            examples=self.examples,
            errors_mn=self.errors_mn[rows],
            cost_usd_mn=self.cost_usd_mn[rows],
        )

    def to_prompts(self, columns: Sequence[int] | Integers) -> Answers:
        """The answers to some prompts, in this order."""
        return Answers(
            models=self.models,
            examples=tuple(self.examples[int(column)] for column in columns),
            errors_mn=self.errors_mn[:, columns],
            cost_usd_mn=self.cost_usd_mn[:, columns],
        )

    def mean_cost_usd(self) -> Floats:
        """Each model's mean cost of the answers whose cost is known, [M].

        Raises:
            RoutingError: A model has no answer with a known cost.
        """
        known = ~np.isnan(self.cost_usd_mn)
        unknown = np.flatnonzero(~known.any(axis=1))
        if unknown.size:
            raise RoutingError(
                f"the cost of {self.models[int(unknown[0])]!r} is not known for any answer, and unknown is "
                "not free; give its price"
            )
        sums = np.where(known, self.cost_usd_mn, 0.0).sum(axis=1)
        means: Floats = sums / known.sum(axis=1)
        return means
