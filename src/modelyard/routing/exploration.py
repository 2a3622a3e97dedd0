"""Trying new models now and then, by lot, so that they come to be known; a request has one lot."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from modelyard.core.errors import RoutingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """With what chance a request goes to a model with few answers, whatever is predicted of it."""

    epsilon: float
    # Models with fewer answers are new.
    answers: int
    # The lot depends on these two alone.
    request_id: str
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise RoutingError(f"epsilon of a request is {self.epsilon}; give a number from 0 to 1")
        if not self.request_id:
            raise RoutingError("a request that may explore has no id; give one, which the lot depends on")

    def drawn(self, count: int) -> int | None:
        """Which of `count` new models is tried; None for none."""
        digest = hashlib.sha256(f"{self.seed}/{self.request_id}".encode()).digest()
        chance, place = (int.from_bytes(part, "big") / 2**64 for part in (digest[:8], digest[8:16]))
        if not count or chance >= self.epsilon:
            return None
        return min(int(place * count), count - 1)

    def propensity(self, count: int, *, new: bool, best: bool) -> float:
        """The chance that a model is chosen, of `count` new ones; `best` is who else would be."""
        if not count:
            return float(best)
        return self.epsilon / count * new + (1.0 - self.epsilon) * best
