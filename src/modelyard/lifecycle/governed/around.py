"""What a governed run is given by whoever calls it: its process, its prover, what was released."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, utc_now
from modelyard.lifecycle.governed.start_policy import Releases
from modelyard.lifecycle.governed.training_step import Training
from modelyard.runs.execution import Observer

#: How far the evaluation is, from 0 to 1.
Told = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a paired evaluation came to, confirmed by the independent verifier."""

    verdict: str
    report: Path
    report_digest: str
    scores: Mapping[str, float]
    delta: float
    reasons: tuple[str, ...]


class Prover:
    """What a trained candidate is proven with; the default proves nothing."""

    def register(self, training: Training, weights: str) -> None:
        """Make the trained candidate a version of the registry."""

    def prove(self, training: Training, weights: str, told: Told) -> Proof | None:
        """The candidate beside the baseline; None where no pack is declared or a stop was asked for."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a governed run needs of its process."""

    environment: Mapping[str, str]
    actor: str
    releases: Releases
    prover: Prover = field(default_factory=Prover)
    slots: int | None = None
    observers: Sequence[Observer] = ()
    # Told of each line of progress.
    told: Callable[[Mapping[str, Any]], None] = lambda _line: None
    clock: Clock = utc_now


def actor_name(environment: Mapping[str, str]) -> str:
    """Who acts, as the journal has it: the user of the process."""
    return environment.get("MODELYARD_ACTOR") or environment.get("USER") or f"uid-{os.getuid()}"
