"""How many nodes of a tree pay here: expected tokens of a pass over what the pass costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.heads.choosing.latency import Clock, PassCost

#: Sizes that are measured.
SIZES = (1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 24, 32, 48, 63)
#: A tree that is predicted to gain less than this is not worth the risk of being slower.
LEAST_GAIN = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a tree of some size is predicted to do."""

    nodes: int
    tokens_per_pass: float
    # Times the cost of a plain pass.
    cost: float

    @property
    def speedup(self) -> float:
        """Tokens per second over those of plain decoding."""
        return self.tokens_per_pass / self.cost

    def as_json(self) -> dict[str, Any]:
        """The prospect as a JSON value."""
        return {
            "nodes": self.nodes, "tokens_per_pass": round(self.tokens_per_pass, 4),
            "cost": round(self.cost, 4), "speedup": round(self.speedup, 4),
        }  # fmt: skip


def prospects(
    tokens_per_pass: Mapping[int, float], costs: Sequence[PassCost], clock: Clock
) -> list[Prospect]:
    """What each size that was measured is predicted to do, the smallest first.

    Args:
        tokens_per_pass: By nodes.
        costs: With that of 0 nodes.
        clock: By which seconds are meant.
    """
    plain = next(cost.by(clock) for cost in costs if cost.nodes == 0)
    return [
        Prospect(nodes=cost.nodes, tokens_per_pass=tokens_per_pass[cost.nodes], cost=cost.by(clock) / plain)
        for cost in sorted(costs, key=lambda cost: cost.nodes)
        if cost.nodes and cost.nodes in tokens_per_pass
    ]


def chosen(found: Sequence[Prospect], *, least_gain: float = LEAST_GAIN) -> Prospect | None:
    """The size with the highest predicted speed-up; None where it is not worth it: decode plainly."""
    best = max(found, key=lambda each: (each.speedup, -each.nodes), default=None)
    return best if best is not None and best.speedup >= least_gain else None
