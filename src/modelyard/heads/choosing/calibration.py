"""Which tree to check: the paths of ranks that really led to the next tokens, on text that was held out.

The worth of a path is how often it is what came: the share of positions where every head on the way ranked
its token so. Expected tokens of a pass are one plus the worths of a tree's paths, hence the best tree of n
nodes has the n most frequent paths, and a path's parent is never rarer than the path. Medusa's own search
multiplies the accuracies of the heads instead, as if one head's luck said nothing of the next one's.

How many nodes pay is another question: see `latency`. What a tree will give is counted by walking through
text as decoding does, from the end of one accepted path to the end of the next.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.choosing.ranks import rank_paths, within
from modelyard.heads.config import RANKS
from modelyard.heads.learning.data import Corpus, TokenSequence
from modelyard.heads.model import Heads
from modelyard.heads.tree import RankPath, Tree

Ranks = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What a tree gives on some text."""

    passes: int
    tokens: int

    @property
    def tokens_per_pass(self) -> float:
        """Tokens of one forward pass; 1 is what plain decoding gives."""
        return self.tokens / self.passes if self.passes else 1.0


def ranked(base: Base, heads: Heads, corpus: Corpus, *, ranks: int = RANKS) -> list[Ranks]:
    """The ranks of what the model wrote, one array [tokens, heads] for each stretch that it wrote."""
    return [each for text in ranked_texts(base, heads, corpus, ranks=ranks) for each in text]


@torch.inference_mode()
def ranked_texts(base: Base, heads: Heads, corpus: Corpus, *, ranks: int = RANKS) -> list[list[Ranks]]:
    """The ranks of what the model wrote: of each text one array [tokens, heads] for each stretch.

    Row i belongs to the pass whose root is the stretch's token i: what the heads, from the hidden state
    before that token, said of those after it; `ranks` where they did not name it, -1 beyond the stretch.
    """
    found = []
    for sequence in corpus.sequences:
        ids_n = torch.from_numpy(sequence.tokens.astype(np.int64)).to(base.device)
        hidden_nh = base.hidden(ids_n[None], use_cache=False)[0]
        ranks_nk = rank_paths(heads, hidden_nh, ids_n, ranks)
        found.append([within(ranks_nk, start, end) for start, end in stretches(sequence)])
    return found


def stretches(sequence: TokenSequence) -> Iterator[tuple[int, int]]:
    """Where what the model writes begins and ends; a text's first token has no pass before it."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], sequence.learned.astype(np.int8), [0]))))
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - max(start, 1) >= 2:
            yield max(start, 1), end


def best_tree(stretches_nk: Sequence[Ranks], size: int, *, ranks: int = RANKS) -> Tree:
    """The tree of at most `size` nodes that is accepted most, in the order of its paths' worth.

    Raises:
        HeadsError: There is nothing to count.
    """
    counts = path_counts(stretches_nk, ranks=ranks)
    if not counts:
        raise HeadsError(
            "in the text for calibration no head named a token that came; give more text, or better heads"
        )
    children: dict[RankPath, list[RankPath]] = {}
    for path in counts:
        children.setdefault(path[:-1], []).append(path)
    waiting = [(-counts[path], len(path), path) for path in children[()]]
    heapq.heapify(waiting)
    chosen: list[RankPath] = []
    while waiting and len(chosen) < size:
        _, _, path = heapq.heappop(waiting)
        chosen.append(path)
        for child in children.get(path, ()):
            heapq.heappush(waiting, (-counts[child], len(child), child))
    return Tree.of(chosen)


def path_counts(stretches_nk: Sequence[Ranks], *, ranks: int = RANKS) -> Counter[RankPath]:
    """How often each path of ranks is what came."""
    counts: Counter[RankPath] = Counter()
    for ranks_nk in stretches_nk:
        for row in ranks_nk.tolist():
            path: list[int] = []
            for rank in row:
                if not 0 <= rank < ranks:
                    break
                path.append(rank)
                counts[tuple(path)] += 1
    return counts


def walked(stretches_nk: Sequence[Ranks], tree: Tree, *, ranks: int = RANKS) -> list[Acceptance]:
    """What decoding the very same text by a tree gives, one count for each stretch.

    Paths with ranks that were not looked at, from `ranks` on, are taken for refused.
    """
    places = frozenset(path for path in tree.paths if max(path) < ranks)
    return [_walk(ranks_nk, places) for ranks_nk in stretches_nk]


def total(parts: Sequence[Acceptance]) -> Acceptance:
    """All together."""
    return Acceptance(passes=sum(p.passes for p in parts), tokens=sum(p.tokens for p in parts))


def _walk(ranks_nk: Ranks, places: frozenset[RankPath]) -> Acceptance:
    """The first token comes with the prompt; each pass gives the accepted ones and the one after them."""
    rows, at, passes = ranks_nk.tolist(), 0, 0
    while at < len(rows) - 1:
        path: RankPath = ()
        for rank in rows[at]:
            if (*path, rank) not in places:
                break
            path = (*path, rank)
        at += len(path) + 1
        passes += 1
    return Acceptance(passes=passes, tokens=len(rows) - 1)
