"""Choosing the tree that decodes fastest on this machine, on text that the heads were not trained on.

Counts of rank paths order the nodes; walks through text say how many tokens a pass gives; timed passes say
what it costs. The walks are crossed: the nodes that one half of the texts asks for are judged on the other
half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from modelyard.core.files import write_json
from modelyard.heads.choosing.calibration import Acceptance, Ranks, best_tree, ranked_texts, total, walked
from modelyard.heads.choosing.latency import Clock, PassCost, measure_passes
from modelyard.heads.choosing.sizing import SIZES, Prospect, chosen, prospects
from modelyard.heads.config import TREE
from modelyard.heads.decoding.decoder import Decoder
from modelyard.heads.learning.data import Corpus
from modelyard.heads.tree import Tree
from modelyard.heads.tree_files import SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTree:
    """A tree, and why it is this one."""

    tree: Tree
    # None where plain decoding is at least as fast.
    prospect: Prospect | None
    prospects: tuple[Prospect, ...]
    costs: tuple[PassCost, ...]
    clock: Clock
    dtype: str
    threads: int
    data: str
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """`tree.json`."""
        return {
            "schema": SCHEMA, "choices": self.tree.as_json(),
            "predicted": None if self.prospect is None else self.prospect.as_json(),
            "sizes": [each.as_json() for each in self.prospects],
            "passes": [each.as_json() for each in self.costs],
            "clock": self.clock, "dtype": self.dtype, "threads": self.threads, "data": self.data,
            "tokens": self.tokens,
        }  # fmt: skip


def choose_tree(
    decoder: Decoder, corpus: Corpus, *, budget: int | None = None, clock: Clock = "wall",
    observe: Callable[[int, int], None] = lambda *_: None,
) -> ChosenTree:  # fmt: skip
    """Choose the tree for a base with heads.

    Args:
        decoder: Of the base and the heads; its own tree does not matter.
        corpus: Text that the heads were not trained on, best what the base itself wrote.
        budget: So many nodes; None takes as many as pay here, or none.
        clock: Seconds that pass, or of the processor.
        observe: Is told rounds of timing done, and of how many.

    Raises:
        HeadsError: There are no heads, or nothing in the text is foretold.
    """
    base, heads = decoder.base, decoder.with_heads()
    texts_nk = ranked_texts(base, heads, corpus)
    sizes = [size for size in SIZES if budget is None or size < budget] + ([budget] if budget else [])
    tree = best_tree(list(chain.from_iterable(texts_nk)), max(sizes))
    sizes = sorted({min(size, tree.size) for size in sizes})
    expected = crossed(texts_nk, sizes)
    costs = measure_passes(Decoder(base, heads, tree), sizes, observe=observe)
    found = prospects(expected, costs, clock)
    wanted = found[-1] if budget is not None else chosen(found)
    return ChosenTree(
        tree=tree.first(wanted.nodes if wanted is not None else 0), prospect=wanted,
        prospects=tuple(found), costs=tuple(costs), clock=clock,
        dtype=str(base.dtype).removeprefix("torch."), threads=torch.get_num_threads(), data=corpus.digest,
        tokens=corpus.learned_tokens,
    )  # fmt: skip


def crossed(texts_nk: Sequence[Sequence[Ranks]], sizes: Sequence[int]) -> dict[int, float]:
    """Tokens of a pass by nodes, each half of the texts by the tree that the other half asks for.

    Args:
        texts_nk: The stretches of each text, which stay together: they tell of one another. Of one text alone
            the stretches are halved, and one stretch alone is judged by its own tree.
        sizes: How many nodes.
    """
    written = [text for text in texts_nk if text]
    parts = [[each] for each in written[0]] if len(written) == 1 else written
    first, second = ([each for text in half for each in text] for half in (parts[::2], parts[1::2]))
    halves = (first, second or first)
    found: dict[int, list[Acceptance]] = {size: [] for size in sizes}
    for learned, judged in (halves, halves[::-1]):
        tree = best_tree(learned, max(sizes))
        for size in sizes:
            found[size] += walked(judged, tree.first(size))
    return {size: total(parts).tokens_per_pass for size, parts in found.items()}


def write_choice(folder: Path, choice: ChosenTree) -> None:
    """Put the tree into a folder of heads."""
    write_json(folder / TREE, choice.as_json())
