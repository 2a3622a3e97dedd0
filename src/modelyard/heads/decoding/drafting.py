"""What one pass checks: the tokens of a tree, some of its places given to what stood there before.

Prompt lookup (Saxena 2023; the library transformers has it as a chain): where the last two or three tokens
have occurred before, what followed them is a likely continuation. It costs nothing to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.heads.tree import Tree

_GRAMS = (3, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The nodes of a pass but for the root, parents first."""

    tokens: tuple[int, ...]
    # The node before each; 0 is the root.
    parents: tuple[int, ...]
    # Whether they are the tree's own nodes, so that its mask fits.
    plain: bool = True

    def children(self) -> list[dict[int, int]]:
        """For each node, the root first: which token leads to which node."""
        found: list[dict[int, int]] = [{} for _ in range(len(self.tokens) + 1)]
        for node, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True), start=1):
            found[parent].setdefault(token, node)
        return found


class Memory:
    """Where each pair and triple of tokens of a sequence has ended last, and before that."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._ends: dict[tuple[int, ...], tuple[int, int]] = {}
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Take what the sequence has grown by."""
        for token in tokens:
            self._tokens.append(token)
            end = len(self._tokens)
            for gram in _GRAMS:
                if end >= gram:
                    key = tuple(self._tokens[end - gram :])
                    self._ends[key] = (end, self._ends.get(key, (0, 0))[0])

    def continuation(self, length: int) -> list[int]:
        """At most `length` tokens that followed the last ones where these stood before."""
        for gram in _GRAMS:
            _, before = self._ends.get(tuple(self._tokens[-gram:]), (0, 0))
            if before:
                return self._tokens[before : before + length]
        return []


def drafted(tree: Tree, drafts: np.ndarray, found: Sequence[int]) -> Candidates:
    """The candidates of one pass, as many as the tree has nodes.

    Args:
        tree: The places.
        drafts: Tokens of each head by rank, [heads, ranks].
        found: A chain that takes the places of the tree's last, least worthy nodes; those that it does not
            need, since it goes along the tree, stay theirs.
    """
    drafted_i = drafts[tree.heads, tree.last_ranks].tolist() if tree.size else []
    if not found:
        return Candidates(tokens=tuple(drafted_i), parents=tree.parents)
    kept = max(tree.size - len(found), 0)
    tokens, parents = drafted_i[:kept], list(tree.parents[:kept])
    places = {edge: node for node, edge in enumerate(zip(parents, tokens, strict=True), start=1)}

    def placed(parent: int, token: int) -> int:
        if (parent, token) not in places:
            parents.append(parent)
            tokens.append(token)
            places[parent, token] = len(tokens)
        return places[parent, token]

    node = 0
    for token in found:
        node = placed(node, token)
    stands = list(range(kept + 1))  # where the tree's nodes are, the root first
    for parent, token in zip(tree.parents[kept:], drafted_i[kept:], strict=True):
        if len(tokens) >= tree.size:
            break
        stands.append(placed(stands[parent], token))
    return Candidates(tokens=tuple(tokens), parents=tuple(parents), plain=False)
