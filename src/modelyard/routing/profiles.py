"""What is known of each model of a router: one row a model, in the order of their names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Floats, Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """M models, K clusters, N fit prompts."""

    names: tuple[str, ...]
    # Errors by cluster, the deviations of what is not known about them, and answers there; [M, K].
    psi_mk: Floats
    sd_mk: Floats
    answers_mk: Integers
    # Mean cost of an answer, [M].
    cost_usd_m: Floats
    # Errors on the fit prompts, [M, N]; NaN where a model was not asked.
    errors_mn: Floats

    def __len__(self) -> int:
        return len(self.names)

    def row(self, name: str) -> int:
        """Where a model stands. Raises `RoutingError` where it does not."""
        if name not in self.names:
            raise RoutingError(f"{name!r} is not in the router: {', '.join(self.names)}")
        return self.names.index(name)

    def without(self, name: str) -> Profiles:
        """All others. Raises `RoutingError` where there is no such model."""
        return self._taken(np.delete(np.arange(len(self)), self.row(name)))

    def together_with(self, other: Profiles) -> Profiles:
        """The models of both, by name."""
        joined = Profiles(
            names=(*self.names, *other.names),
            psi_mk=np.concatenate([self.psi_mk, other.psi_mk]),
            sd_mk=np.concatenate([self.sd_mk, other.sd_mk]),
            answers_mk=np.concatenate([self.answers_mk, other.answers_mk]),
            cost_usd_m=np.concatenate([self.cost_usd_m, other.cost_usd_m]),
            errors_mn=np.concatenate([self.errors_mn, other.errors_mn]),
        )
        return joined._taken(np.array(sorted(range(len(joined)), key=joined.names.__getitem__), np.int64))

    def _taken(self, rows: Integers) -> Profiles:
        return Profiles(
            names=tuple(self.names[int(row)] for row in rows),
            psi_mk=self.psi_mk[rows],
            sd_mk=self.sd_mk[rows],
            answers_mk=self.answers_mk[rows],
            cost_usd_m=self.cost_usd_m[rows],
            errors_mn=self.errors_mn[rows],
        )
