"""Trees of candidates: which ranks of which heads are checked together in one forward pass.

A node is a path of ranks: (0,) is the first head's likeliest token, (0, 2) the second head's third likeliest
after it. The root is the token that is already known; it is node 0 wherever nodes are numbered, and the n
paths are nodes 1 to n (arXiv 2401.10774, section 2.1.2). Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import HeadsError

RankPath = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A set of rank paths in which the parent of each path comes before it.

    The order is that of their worth: any first part of the paths is a tree, the best one of its size.
    """

    paths: tuple[RankPath, ...]

    @classmethod
    def of(cls, paths: Iterable[Sequence[int]], *, place: str = "tree") -> Tree:
        """Check paths and take them in their order, parents first.

        Raises:
            HeadsError: A path is empty, doubled, negative, or its parent is missing or comes later.
        """
        known: dict[RankPath, None] = {(): None}
        for raw in paths:
            path = tuple(raw)
            if not path or path in known or min(path) < 0:
                raise HeadsError(f"{place}: path {list(path)} is empty, doubled or negative; leave it out")
            if path[:-1] not in known:
                raise HeadsError(
                    f"{place}: path {list(path)} has no parent before it; add it, or list it first"
                )
            known[path] = None
        return cls(paths=tuple(known)[1:])

    @property
    def size(self) -> int:
        """Nodes, the root not counted."""
        return len(self.paths)

    @property
    def depth(self) -> int:
        """The length of the longest path: so many heads are used."""
        return max(map(len, self.paths), default=0)

    @property
    def ranks(self) -> int:
        """One more than the largest rank: so many tokens of a head are looked at."""
        return max((rank for path in self.paths for rank in path), default=-1) + 1

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """The node before each of nodes 1 to n."""
        numbers = {path: number for number, path in enumerate(((), *self.paths))}
        return tuple(numbers[path[:-1]] for path in self.paths)

    @cached_property
    def heads(self) -> NDArray[np.int64]:
        """The head whose token each of nodes 1 to n holds, from 0: [n]."""
        return np.array([len(path) - 1 for path in self.paths], dtype=np.int64)

    @cached_property
    def last_ranks(self) -> NDArray[np.int64]:
        """The rank of that token: [n]."""
        return np.array([path[-1] for path in self.paths], dtype=np.int64)

    def first(self, size: int) -> Tree:
        """The first `size` paths."""
        return Tree(paths=self.paths[:size])

    def as_json(self) -> list[list[int]]:
        """The paths as lists, which is how Medusa's own files give its choices."""
        return [list(path) for path in self.paths]


def chain(length: int) -> Tree:
    """The likeliest token of each of the first heads."""
    return Tree(paths=tuple((0,) * depth for depth in range(1, length + 1)))


def depths(parents: Sequence[int]) -> NDArray[np.int64]:
    """How far each node is from the root, the root first: [n + 1]."""
    found = np.zeros(len(parents) + 1, dtype=np.int64)
    for node, parent in enumerate(parents, start=1):
        found[node] = found[parent] + 1
    return found


def ancestry(parents: Sequence[int]) -> NDArray[np.bool_]:
    """Whether node j is node i or lies on the way to it, the root first: [n + 1, n + 1]."""
    seen = np.eye(len(parents) + 1, dtype=np.bool_)
    for node, parent in enumerate(parents, start=1):
        seen[node] |= seen[parent]
    return seen


def read_choices(value: Any, *, place: str) -> Tree:
    """A tree from a JSON list of lists of ranks, in any order, as Medusa's `medusa_choices` are.

    Raises:
        HeadsError: It is no such list, or a path has no parent in it.
    """
    fit = isinstance(value, list) and all(
        isinstance(path, list) and all(isinstance(rank, int) and not isinstance(rank, bool) for rank in path)
        for path in value
    )
    if not fit:
        raise HeadsError(f"{place}: is no list of lists of ranks; give [[0], [1], [0, 0]], say")
    in_order = list(value)
    seen: set[RankPath] = {()}
    for path in in_order:
        if tuple(path[:-1]) not in seen:  # not in the order of worth: the shorter first
            return Tree.of(sorted(in_order, key=lambda each: (len(each), each)), place=place)
        seen.add(tuple(path))
    return Tree.of(in_order, place=place)
