"""What a pass costs on this machine, by the nodes that it checks.

The same passes that decoding makes are timed: drafting, the forward pass, the choice of tokens and the
commit. Sizes take turns, so that a machine that is busy for a while is busy for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch

from modelyard.heads.decoding.decoder import Decoder, Run
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.tree import Tree

Clock = Literal["wall", "cpu"]
#: Tokens before the pass, and passes of each size that are timed after two that are not.
CONTEXT, ROUNDS, _WARM = 256, 15, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """What one pass costs: medians."""

    # Checked beside the root; 0 is plain decoding, without heads.
    nodes: int
    wall_s: float
    cpu_s: float

    def by(self, clock: Clock) -> float:
        """Seconds on one of the clocks."""
        return self.wall_s if clock == "wall" else self.cpu_s

    def as_json(self) -> dict[str, Any]:
        """The cost as a JSON value, in milliseconds."""
        return {
            "nodes": self.nodes,
            "wall_ms": round(1e3 * self.wall_s, 3),
            "cpu_ms": round(1e3 * self.cpu_s, 3),
        }


def measure_passes(
    decoder: Decoder, sizes: Sequence[int], *, context: int = CONTEXT, rounds: int = ROUNDS,
    observe: Callable[[int, int], None] = lambda *_: None,
) -> list[PassCost]:  # fmt: skip
    """Time passes of plain decoding and of the first nodes of a tree.

    Args:
        decoder: A base with heads and a tree of at least as many nodes as the largest size.
        sizes: How many nodes to check; 0 is always measured.
        context: Tokens before the pass; fewer where the model reads fewer.
        rounds: Passes of each size.
        observe: Is told rounds done, and of how many.
    """
    wanted = sorted({0, *sizes})
    if decoder.base.most_tokens is not None:  # the same for all
        room = decoder.base.most_tokens - _most_new(decoder.tree, rounds) - decoder.tree.depth
        context = max(1, min(context, room))
    runs = {size: _begun(decoder, size, context, rounds) for size in wanted}
    times: dict[int, list[tuple[float, float]]] = {size: [] for size in wanted}
    for number in range(_WARM + rounds):
        for size, run in runs.items():
            spent = _timed(run)
            if number >= _WARM:
                times[size].append(spent)
        observe(number + 1, _WARM + rounds)
    return [
        PassCost(nodes=size, wall_s=median(w for w, _ in spent), cpu_s=median(c for _, c in spent))
        for size, spent in times.items()
    ]


def _begun(decoder: Decoder, size: int, context: int, rounds: int) -> Run:
    base, tree = decoder.base, decoder.tree.first(size)
    smaller = Decoder(base, decoder.heads if size else None, tree)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(base.vocab_size, (context,), generator=generator).tolist()
    most = _most_new(tree, rounds)
    return smaller.begin([ids], DecodeSettings(max_new_tokens=most, ignore_end=True))


def _most_new(tree: Tree, rounds: int) -> int:
    """So many tokens cannot be made in all passes of one size."""
    return (_WARM + rounds) * (tree.depth + 1) + 2


def _timed(run: Run) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run.advance()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s
