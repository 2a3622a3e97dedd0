"""Probabilistic pools: experts that forecast quantiles, mixed level by level by their pinball loss.

Every level is a problem of its own (Koenker & Bassett 1978; as `opera` mixes quantiles), so that an
expert may be trusted for the tails and not for the middle. The mixed levels are put in order, which can
only lower the loss (Chernozhukov, Fernández-Val & Galichon 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.aggregator import Aggregator, Pool
from modelyard.ensemble.combining.lessons import Floats
from modelyard.ensemble.combining.losses import loss_of

SCHEMA = "modelyard.quantile-pool/1"


class QuantilePool:
    """One `Aggregator` over all levels of all series. Not safe for several threads.

    Args:
        pool: Its experts, series, method, memory and delay; loss and levels are set here.
        levels: In (0, 1), rising.

    Raises:
        PolicyError: The levels do not rise, or a field is out of range.
    """

    def __init__(self, pool: Pool, levels: tuple[float, ...]) -> None:
        if not levels or list(levels) != sorted(set(levels)):
            raise PolicyError(f"levels = {list(levels)} do not rise; give each once, the lowest first")
        self.levels, self._series = levels, pool.series
        inner = replace(pool, series=pool.series * len(levels), loss="pinball", levels=levels * pool.series)
        self._inner = Aggregator(inner)

    def predict(self, experts: Floats) -> Floats:
        """The mixed quantiles in order, `(series, levels)`; NaN where every expert sleeps.

        Args:
            experts: Their quantiles, `(series, levels, experts)`; NaN sleeps.

        Raises:
            PolicyError: Another shape, or `update` is due.
        """
        shape = (self._series, len(self.levels), self._inner.pool.experts)
        given = np.asarray(experts, dtype=float)
        if given.shape != shape:
            raise PolicyError(f"the experts' quantiles have the shape {given.shape}; {shape} is required")
        mixed = self._inner.predict(given.reshape(-1, shape[2])).reshape(shape[:2])
        return np.sort(mixed, axis=1)

    def update(self, truth: Floats | float) -> None:
        """Learn from the newest values, `(series,)`; NaN teaches nothing."""
        y = np.broadcast_to(np.asarray(truth, dtype=float), (self._series,))
        self._inner.update(np.repeat(y, len(self.levels)))

    def to_state(self) -> dict[str, Any]:
        """As of `Aggregator.to_state`."""
        return {"schema": SCHEMA, "levels": list(self.levels), "inner": self._inner.to_state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> QuantilePool:
        """A pool that goes on from `to_state`, bit for bit.

        Raises:
            PolicyError: It is of another schema, or arrays are missing or of another shape.
        """
        if state.get("schema") != SCHEMA:
            raise PolicyError(f"the state is {state.get('schema')!r}, but {SCHEMA} is required")
        inner = Aggregator.from_state(state["inner"])
        levels = tuple(state["levels"])
        pool = replace(inner.pool, series=inner.pool.series // len(levels), loss="absolute", levels=())
        made = cls(pool, levels)
        made._inner = inner
        return made


def pinball(quantiles: Floats, truth: Floats, levels: tuple[float, ...]) -> Floats:
    """The pinball loss averaged over the levels, `(...)`, of quantiles `(..., levels)`."""
    return np.asarray(loss_of(quantiles - truth[..., None], "pinball", np.array(levels)).mean(axis=-1))
