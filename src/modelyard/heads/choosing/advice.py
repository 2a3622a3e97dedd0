"""Whether heads can pay for a base on this machine, before any are trained.

Heads that were never trained cost as much as trained ones, so that passes can be timed at once. What they
would accept is taken from heads that were trained; the numbers below are of SmolLM2-135M-Instruct
(docs/benchmarks.md). A larger model's heads accept more (arXiv 2401.10774, table 1), so that a yes holds for
them, and a no with a cost near the expected tokens may turn. What decides is on every line: the tokens of a
pass above which it pays.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from modelyard.heads.base import Base
from modelyard.heads.choosing.latency import Clock, PassCost, measure_passes
from modelyard.heads.choosing.sizing import SIZES, Prospect, chosen, prospects
from modelyard.heads.config import HeadsConfig
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.model import Heads
from modelyard.heads.tree import RankPath, Tree

#: Tokens of a pass by nodes; docs/benchmarks.md, "Heads".
EXPECTED: Mapping[int, float] = MappingProxyType(
    {1: 1.27, 2: 1.38, 3: 1.45, 4: 1.49, 6: 1.57, 8: 1.62, 10: 1.65, 13: 1.70, 16: 1.74, 20: 1.76, 24: 1.78,
     32: 1.81, 48: 1.85, 63: 1.87}
)  # fmt: skip
#: A speed-up that is worth training heads for.
WORTH = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What is to be expected here."""

    dtype: str
    threads: int
    clock: Clock
    costs: tuple[PassCost, ...]
    prospects: tuple[Prospect, ...]

    @property
    def best(self) -> Prospect | None:
        """The best size, if it is worth training heads for."""
        return chosen(self.prospects, least_gain=WORTH)

    def as_json(self) -> dict[str, Any]:
        """The advice as a JSON value."""
        best = self.best
        return {
            "pays": best is not None, "best": None if best is None else best.as_json(), "dtype": self.dtype,
            "threads": self.threads, "clock": self.clock, "worth": WORTH,
            "sizes": [
                {**prospect.as_json(), "pays_above": round(prospect.cost, 4)} for prospect in self.prospects
            ],
            "passes": [cost.as_json() for cost in self.costs],
        }  # fmt: skip


def advise(
    base: Base, *, heads: int = 4, drafted: int = 8192, clock: Clock = "wall",
    observe: Callable[[int, int], None] = lambda *_: None,
) -> Advice:  # fmt: skip
    """Time passes of trees of all sizes with heads that were never trained.

    Args:
        base: The model, in the type that it is to decode in.
        heads: How many there would be.
        drafted: Tokens that could be drafted.
        clock: Seconds that pass, or of the processor.
        observe: Is told rounds done, and of how many.
    """
    drafted = min(drafted, base.vocab_size)
    config = HeadsConfig(
        heads=heads, layers=1, hidden_size=base.hidden_size, vocab_size=base.vocab_size,
        projection="shared", drafted=drafted, base="", base_name="",
    )  # fmt: skip
    shortlist = torch.arange(drafted) if drafted < base.vocab_size else None
    untrained = Heads(config, base.projection_vh, shortlist).to(base.device, base.dtype).eval()
    decoder = Decoder(base, untrained, widest_tree(max(SIZES), heads=heads, ranks=min(10, drafted)))
    sizes = [size for size in SIZES if size <= decoder.tree.size]
    costs = measure_passes(decoder, sizes, observe=observe)
    return Advice(
        dtype=str(base.dtype).removeprefix("torch."), threads=torch.get_num_threads(), clock=clock,
        costs=tuple(costs), prospects=tuple(prospects(EXPECTED, costs, clock)),
    )  # fmt: skip


def widest_tree(size: int, *, heads: int, ranks: int) -> Tree:
    """A tree of a usual shape: a path is the less likely the higher its ranks and the longer it is."""
    waiting, chosen = [_priced((0,))], list[RankPath]()
    while waiting and len(chosen) < size:
        *_, path = heapq.heappop(waiting)
        chosen.append(path)
        if len(path) < heads:
            heapq.heappush(waiting, _priced((*path, 0)))
        if sum(path) + 1 < ranks:
            heapq.heappush(waiting, _priced((*path[:-1], path[-1] + 1)))
    return Tree.of(chosen)


def _priced(path: RankPath) -> tuple[float, int, RankPath]:
    return len(path) + sum(math.log2(1 + rank) for rank in path), len(path), path
