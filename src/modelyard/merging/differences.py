"""How two models differ, tensor by tensor.

All tensors are read once, block by block, and everything is told from sums over elements: squared
norms and counts. Sums add up, so a layer, a kind of module and the whole model are measured like one
tensor. Memory does not depend on the models' size. How it is shown is not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Self, TypeVar

import numpy as np

from modelyard.merging.architecture import place_of
from modelyard.merging.blocks import Floats, Source, Workspace
from modelyard.merging.measuring import (
    Observer,
    comparable,
    float_blocks,
    inner_products,
    measured,
    parts_of,
    shape_text,
    zeroed,
)
from modelyard.merging.models import Model

#: Two models whose matrices have a cosine below the first and a relative difference above the second
#: do not look like fine-tunes of one model: independent ones have about 0 and the square root of 2.
STRANGERS_COSINE, STRANGERS_RELATIVE = 0.3, 0.9

K = TypeVar("K")
T = TypeVar("T")


# Records.


class _Added:
    """Records of sums: adding two adds every field."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two vectors, known by their norms and the norm of what lies between them."""

    one: float
    other: float
    between: float

    @property
    def relative(self) -> float:
        """The distance in units of the other's norm; infinite where that is zero and they differ."""
        return self.between / self.other if self.other else (math.inf if self.between else 0.0)

    @property
    def cosine(self) -> float:
        """The cosine of the angle between them; NaN where one is zero."""
        return math.cos(math.radians(self.degrees))

    @property
    def degrees(self) -> float:
        """The angle between them; NaN where one is zero.

        Small angles are exact where the norms are alike; where these differ by a factor f, those
        below some 1e-6 degrees times the root of f are lost in rounding.
        """
        if not self.one or not self.other:
            return math.nan
        apart, total = self.one - self.other, self.one + self.other
        opposite = max(0.0, (self.between - apart) * (self.between + apart))
        adjacent = max(0.0, (total - self.between) * (total + self.between))
        return math.degrees(2 * math.atan2(math.sqrt(opposite), math.sqrt(adjacent)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSums(_Added):
    """Sums over the elements of the task vectors A - base and B - base."""

    # Squared norms: of the base, A and B themselves, then of both task vectors, and of A - B.
    base: float = 0.0
    stored_a: float = 0.0
    stored_b: float = 0.0
    a: float = 0.0
    b: float = 0.0
    between: float = 0.0
    # Elements where both differ from the base, and those of them where they differ in direction.
    both: int = 0
    conflicts: int = 0

    @property
    def pair(self) -> Pair:
        """The two task vectors."""
        return _pair(self.a, self.b, self.between)

    @property
    def moved_a(self) -> float:
        """The norm of A - base in units of the base's; NaN without a base."""
        return math.sqrt(self.a / self.base) if self.base else math.nan

    @property
    def moved_b(self) -> float:
        """The norm of B - base in units of the base's; NaN without a base."""
        return math.sqrt(self.b / self.base) if self.base else math.nan

    @property
    def conflict_share(self) -> float:
        """The share of sign conflicts among elements where both differ from the base; NaN without any."""
        return self.conflicts / self.both if self.both else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums(_Added):
    """Sums over the elements that two models have; those not finite in either are only counted."""

    elements: int = 0
    differing: int = 0
    not_finite: int = 0
    # Squared norms: of A, of B, of A - B.
    a: float = 0.0
    b: float = 0.0
    between: float = 0.0
    # Over the tensors that a base has too.
    task: TaskSums = TaskSums()

    @property
    def pair(self) -> Pair:
        """The two models' weights."""
        return _pair(self.a, self.b, self.between)

    @property
    def differing_share(self) -> float:
        """The share of elements that differ."""
        return self.differing / self.elements if self.elements else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One tensor of two models."""

    name: str
    shape: tuple[int, ...]
    sums: Sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two models, and perhaps the base that both are held against."""

    tensors: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    # Name, and what A and B have; other types are compared all the same.
    other_shape: tuple[tuple[str, str, str], ...]
    other_dtype: tuple[tuple[str, str, str], ...]
    # Integers and booleans, which are not compared.
    not_floating: tuple[str, ...]
    # Compared without the base, which has nothing of the name and shape.
    not_in_base: tuple[str, ...]
    has_base: bool

    @property
    def whole(self) -> Sums:
        """All compared tensors."""
        return reduce(add, (each.sums for each in self.tensors), Sums())

    @property
    def matrices(self) -> Sums:
        """All but vectors: norms' weights lie near one in every model and make strangers look alike."""
        return reduce(add, (each.sums for each in self.tensors if len(each.shape) > 1), Sums())


# Two models.


def compare(
    a: Model, b: Model, base: Model | None = None, *, threads: int = 1,
    observe: Observer = lambda _item: None,
) -> Comparison:  # fmt: skip
    """Measure every tensor that two models have in the same shape.

    Raises:
        CheckpointError: A tensor cannot be read.
    """
    names_a, names_b = a.checkpoint.tensors, b.checkpoint.tensors
    both = [name for name in names_a if name in names_b]
    shapes = [(n, shape_text(a, n), shape_text(b, n)) for n in both]
    dtypes = [(n, names_a[n].dtype.word, names_b[n].dtype.word) for n in both]
    floating = {n for n in both if names_a[n].dtype.floating and names_b[n].dtype.floating}
    alike = [n for n in both if comparable((a, b), n)]
    in_base = {n for n in alike if base is not None and comparable((a, base), n)}
    jobs = {n: parts_of((a, b, *([base] if base and n in in_base else [])), n) for n in alike}
    sums = measured(jobs, _measure, threads=threads, observe=observe)
    return Comparison(
        tensors=tuple(Difference(name=n, shape=names_a[n].shape, sums=sums[n]) for n in alike),
        only_a=tuple(n for n in names_a if n not in names_b),
        only_b=tuple(n for n in names_b if n not in names_a),
        other_shape=tuple(entry for entry in shapes if entry[1] != entry[2]),
        other_dtype=tuple(entry for entry in dtypes if entry[1] != entry[2]),
        not_floating=tuple(n for n in both if n not in floating),
        not_in_base=tuple(n for n in alike if base is not None and n not in in_base),
        has_base=base is not None,
    )


def strangers(comparison: Comparison) -> list[str]:
    """A sentence for every two of the models that do not look like fine-tunes of one model."""
    sums = comparison.matrices
    pairs = {("A", "B"): sums.pair}
    if comparison.has_base and sums.task.base:
        pairs = {
            ("A", "the base"): _pair(sums.task.stored_a, sums.task.base, sums.task.a),
            ("B", "the base"): _pair(sums.task.stored_b, sums.task.base, sums.task.b),
            **pairs,
        }
    return [
        f"{one} and {other} do not look like fine-tunes of one model: the difference of their matrices has "
        f"{pair.relative:.2f} times the norm of {other} (above {STRANGERS_RELATIVE}), and their cosine is "
        f"{pair.cosine:.3f} (below {STRANGERS_COSINE})"
        for (one, other), pair in pairs.items()
        if pair.cosine < STRANGERS_COSINE and pair.relative > STRANGERS_RELATIVE
    ]


# Layers and modules.


def layer_of(name: str) -> str | None:
    """The layer that a tensor stands in, such as `model.layers.3`; None outside of all."""
    place = place_of(name)
    return None if place.layer is None else f"{place.stack}.{place.layer}"


def module_of(name: str) -> str:
    """What a tensor is in its layer, such as `self_attn.q_proj.weight`; experts' numbers are a star."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", place_of(name).rest)


def natural(text: str) -> list[tuple[str, int]]:
    """What to sort names by so that numbers in them count as numbers: layer 2 before layer 10."""
    parts = re.split(r"(\d+)", text)
    return [(word, int(number or 0)) for word, number in zip(parts[::2], [*parts[1::2], ""], strict=True)]


def grouped(entries: Iterable[tuple[K | None, T]]) -> dict[K, list[T]]:
    """Values by key, in the order in which keys are met; None is left out."""
    groups: dict[K, list[T]] = {}
    for key, value in entries:
        if key is not None:
            groups.setdefault(key, []).append(value)
    return groups


def summed(tensors: Iterable[Difference], key: Callable[[str], K | None]) -> dict[K, Sums]:
    """The sums of all tensors whose names have the same key."""
    groups = grouped((key(each.name), each.sums) for each in tensors)
    return {found: reduce(add, sums) for found, sums in groups.items()}


def _measure(sources: Sequence[Source], size: int) -> Sums:
    """The sums of a tensor of A, of B, and where it has one of the base."""
    space, total = Workspace(), Sums()
    for _, rows, wrong in float_blocks(sources, size, space):
        total += _block_sums(rows, space, lost=zeroed(rows) if wrong else 0)
    return total


def _block_sums(rows: Floats, space: Workspace, *, lost: int) -> Sums:
    a, b, *base = rows
    between = a - b
    squares = [_square(row, space) for row in (a, b, between)]
    return Sums(
        elements=len(a),
        differing=int(np.count_nonzero(between)),
        not_finite=lost,
        a=squares[0],
        b=squares[1],
        between=squares[2],
        task=_task_sums(rows, squares, space) if base else TaskSums(),
    )


def _task_sums(rows: Floats, squares: Sequence[float], space: Workspace) -> TaskSums:
    a, b, base = rows
    stored = _square(base, space)
    a -= base
    b -= base
    both = (a != 0) & (b != 0)
    return TaskSums(
        base=stored,
        stored_a=squares[0],
        stored_b=squares[1],
        a=_square(a, space),
        b=_square(b, space),
        between=squares[2],
        both=int(np.count_nonzero(both)),
        conflicts=int(np.count_nonzero(both & ((a < 0) != (b < 0)))),
    )


def _square(row: Floats, space: Workspace) -> float:
    return float(inner_products([row], space)[0, 0])


def _pair(one: float, other: float, between: float) -> Pair:
    """From squared norms."""
    return Pair(one=math.sqrt(one), other=math.sqrt(other), between=math.sqrt(between))
