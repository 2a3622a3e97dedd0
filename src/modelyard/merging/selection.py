"""The k-th largest of many magnitudes, exactly and without sorting them.

A histogram of the upper sixteen bits of the float64 pattern (which orders as the numbers do) finds the
bucket that holds the k-th largest; the few values of that bucket are gathered and partitioned. A
bucket that is too large to gather, as when all magnitudes are equal, is divided further, sixteen bits
at a time. Equal values are ordered by their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.core.errors import MergeError
from modelyard.merging.blocks import BLOCK, Floats, Integers

#: Most values of a bucket that are gathered, for each model: 16 bytes each.
CAPACITY = 1 << 21
_BINS = 1 << 16
_SHIFTS = (47, 31, 15, 0)

#: Counts values of each row by the sixteen bits from `shift` on, where those above are tops[row].
Count = Callable[[int, Integers, Integers], None]
#: Gathers the values of each row whose bits from `shift` on are tops[row], by blocks: values, places, counts.
Gather = Callable[[int, Integers, int], Iterator[tuple[Floats, Integers, Integers]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Parts the largest values from the rest: those above `value`, and those equal to it up to `place`."""

    value: float
    place: int

    @classmethod
    def none(cls) -> Bound:
        """No value is that large."""
        return cls(value=math.inf, place=-1)

    @classmethod
    def every(cls) -> Bound:
        """All are."""
        return cls(value=-1.0, place=-1)


def select(
    keep: Sequence[int], *, size: int, count: Count, gather: Gather, capacity: int = CAPACITY
) -> list[Bound]:
    """For each row the bound that parts its keep[row] largest values from the rest.

    Args:
        keep: How many of each row's values; 0 to `size`.
        size: The values of each row.
        count: Counts values by sixteen bits.
        gather: Gathers values by their upper bits.
        capacity: How many values of a row are gathered at most.
    """
    bounds = [Bound.none() if k == 0 else Bound.every() for k in keep]
    open_rows = [row for row, k in enumerate(keep) if 0 < k < size]
    prefixes = dict.fromkeys(open_rows, 0)
    wanted = {row: keep[row] for row in open_rows}
    for level, shift in enumerate(_SHIFTS):
        if not prefixes:
            break
        bins = np.zeros((len(keep), _BINS), np.int64)
        count(shift, _tops(len(keep), prefixes, halve=shift == 0), bins)
        few: dict[int, int] = {}
        most = 0
        for row in list(prefixes):
            digit, above, here = _bucket(bins[row], wanted[row], prefixes[row] if shift == 0 else None)
            prefixes[row] = (prefixes[row] >> 1 if shift == 0 else prefixes[row]) << 16 | digit
            wanted[row] -= above
            if here <= capacity:
                few[row], most = prefixes.pop(row), max(most, here)
        del bins
        if few:
            _settle(bounds, few, wanted, gather(shift, _tops(len(keep), few), most))
        if level == len(_SHIFTS) - 1:
            for row, bits in prefixes.items():
                bounds[row] = _among_equals(
                    row, bits, wanted[row], gather(0, _tops(len(keep), {row: bits}), BLOCK)
                )
    return bounds


def select_in(
    values: Callable[[], Iterator[Floats]], keep: Sequence[int], *, size: int, capacity: int = CAPACITY
) -> list[Bound]:
    """Bounds of the keep[row] largest among values of 0 or more that numpy makes block by block.

    Args:
        values: Starts a pass over all values, in the order of their places.
        keep: One number for each bound that is wanted; 0 to `size`.
        size: How many values there are.
        capacity: How many values are gathered at most for each bound.
    """

    def patterns() -> Iterator[tuple[Floats, Integers]]:
        for block in values():
            plain = np.abs(block)  # neither -0.0 nor a NaN may have a sign
            yield plain, plain.view(np.int64)

    def count(shift: int, tops: Integers, bins: Integers) -> None:
        for _, bits in patterns():
            for row in np.flatnonzero(tops >= 0):
                inside = bits[bits >> shift >> 16 == tops[row]]
                bins[row] += np.bincount(inside >> shift & (_BINS - 1), minlength=_BINS)

    def gather(shift: int, tops: Integers, most: int) -> Iterator[tuple[Floats, Integers, Integers]]:
        found, places = np.empty((len(keep), most)), np.empty((len(keep), most), np.int64)
        counts, begin = np.zeros(len(keep), np.int64), 0
        for block, bits in patterns():
            for row in np.flatnonzero(tops >= 0):
                here = np.flatnonzero(bits >> shift == tops[row])
                place = slice(counts[row], counts[row] + len(here))
                found[row, place], places[row, place] = block[here], here + begin
                counts[row] += len(here)
            begin += len(block)
            yield found, places, counts

    return select(keep, size=size, count=count, gather=gather, capacity=capacity)


def _tops(rows: int, prefixes: dict[int, int], *, halve: bool = False) -> Integers:
    tops = np.full(rows, -1, np.int64)
    for row, prefix in prefixes.items():
        tops[row] = prefix >> 1 if halve else prefix
    return tops


def _bucket(bins: Integers, k: int, prefix: int | None) -> tuple[int, int, int]:
    """The bin that holds the k-th largest, how many lie in bins above it, and how many in it.

    The last sixteen bits share one with the bits before; of them only those count that agree in it.
    """
    if prefix is not None:
        half = _BINS // 2
        bins = bins.copy()
        bins[:half] *= not prefix & 1
        bins[half:] *= prefix & 1
    reached = np.cumsum(bins[::-1])
    place = int(np.searchsorted(reached, k))
    here = int(bins[_BINS - 1 - place])
    return _BINS - 1 - place, int(reached[place]) - here, here


def _settle(
    bounds: list[Bound], few: dict[int, int], wanted: dict[int, int],
    gathered: Iterator[tuple[Floats, Integers, Integers]],
) -> None:  # fmt: skip
    """Find the bounds of the rows whose bucket is small enough to look at value by value."""
    for found, places, counts in gathered:
        kept = found, places, counts
    for row in few:
        held = int(kept[2][row])
        values, where, k = kept[0][row, :held], kept[1][row, :held], wanted[row]
        value = np.partition(values, held - k)[held - k]
        equal = k - int(np.count_nonzero(values > value))
        same = np.isnan(values) if math.isnan(value) else values == value
        bounds[row] = Bound(value=float(value), place=int(where[same][equal - 1]))


def _among_equals(
    row: int, bits: int, k: int, gathered: Iterator[tuple[Floats, Integers, Integers]]
) -> Bound:
    """The place of the k-th of very many equal values."""
    before = 0
    for found, places, counts in gathered:
        here = int(counts[row])
        if before + here >= k:
            return Bound(value=float(found[row, 0]), place=int(places[row, k - before - 1]))
        before += here
        counts[row] = 0
    raise MergeError(
        f"counted {k} values of {bits:#x} and met {before}: an input changed while it was read; "
        "leave the inputs alone and run the merge again"
    )
