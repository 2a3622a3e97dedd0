"""The tensors of one name that a method makes one out of: the passes over them, and the one result.

A method sees its parameters, asks for sums, inner products or order statistics, and emits. Every
pass reads the inputs block by block and computes in float64; the result is rounded once. Nothing
depends on the number of threads, on blocks or on shards: reductions run in the order of elements,
equal magnitudes are ordered by their place, and random numbers are a function of seed, name, model
and place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from modelyard.core.errors import MergeError
from modelyard.merging.blocks import BLOCK, CODES, Floats, Integers, Sink, Source, Stored, Workspace
from modelyard.merging.kernels import constants
from modelyard.merging.kernels.checksum import Checksum
from modelyard.merging.recipe import Scalar
from modelyard.merging.selection import Bound, select
from modelyard.merging.side_files import SideTensor

#: The numbers of SplitMix64, as in `kernels/source.py`.
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Election(IntEnum):
    """Which differences may take part at an element."""

    NONE = constants.SIGN_NONE
    # Those with the sign of the weighted sum.
    SUM = constants.SIGN_SUM
    # Those with the sign that most models have.
    COUNT = constants.SIGN_COUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """What is kept of one model's differences to the base; the rest counts as zero."""

    kind: int = constants.ALL
    # Kept are magnitudes below `high` and above `low`; at a bound the place decides.
    high: Bound = Bound.none()
    low: Bound = Bound.every()
    # Kept are elements whose random number is below this.
    below: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """The parameters of a method at one tensor."""

    common: Mapping[str, Scalar]
    each: Sequence[Mapping[str, Scalar]]
    # What the models' side files have for it, one a model where any has.
    sides: Sequence[SideTensor | None] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was met while a tensor was merged."""

    # Values of each input that are not finite; the base is the last.
    not_finite: tuple[int, ...]
    # Finite results that the output's type cannot hold.
    overflowed: int
    # XXH64 of each input's stored bytes; empty where an input was computed.
    inputs: tuple[str, ...]
    # XXH64 of the output's bytes.
    output: str


class Tensors:
    """What a merge method works on; see the module."""

    def __init__(
        self, *, sources: Sequence[Source], base: Source | None, sink: Sink, values: Values,
        workspace: Workspace, seed: int,
    ) -> None:  # fmt: skip
        self.name = sink.info.name
        self.shape = sink.info.shape
        self.size = sink.info.size
        self.count = len(sources)
        self.has_base = base is not None
        self._inputs = [*sources, base] if base is not None else list(sources)
        self.values = values
        self._sink, self._space, self._seed = sink, workspace, seed
        self._codes = np.array([CODES[source.dtype] for source in self._inputs], np.int64)
        self._buffers = [workspace.input(j) for j in range(len(self._inputs))]
        self._views = [buffer.data for buffer in self._buffers]
        self._addresses = np.array([buffer.ctypes.data for buffer in self._buffers], np.uint64)
        self._scratch = workspace.scratch(len(self._inputs))
        self._stats = np.zeros(len(self._inputs) + 1, np.int64)
        self._stats_at = self._stats.ctypes.data
        # The kernels take the same first arguments everywhere.
        self._head = (self._addresses.ctypes.data, self._codes.ctypes.data, len(self._inputs))
        self._tail = (self._scratch.ctypes.data, workspace.output.ctypes.data, CODES[sink.info.dtype])
        self._passes = self._written = 0
        self._met = False  # whether values that are not finite have been counted in a pass of `blocks`
        self._loaded: dict[int, Floats] = {}
        self._checksum = Checksum()
        self._input_checksums = [Checksum() if isinstance(s, Stored) else None for s in self._inputs]

    def finding(self) -> Finding:
        """What was met, once the result has been emitted. Raises `MergeError` where it was not."""
        if self._written != self.size:
            raise MergeError(
                f"{self.name}: the method emitted {self._written} of {self.size} elements; mend the method"
            )
        return Finding(
            not_finite=tuple(int(n) for n in self._stats[:-1]),
            overflowed=int(self._stats[-1]),
            inputs=tuple(c.value() if c else "" for c in self._input_checksums),
            output=self._checksum.value(),
        )

    # Parameters.

    def number(self, name: str) -> float:
        """A parameter that is the same for all models."""
        return float(self.values.common[name])

    def flag(self, name: str) -> bool:
        """A true-or-false parameter."""
        return bool(self.values.common[name])

    def text(self, name: str) -> str:
        """A parameter that is one of several words."""
        return str(self.values.common[name])

    def numbers(self, name: str) -> Floats:
        """A parameter of each model, in order; the base not among them."""
        return np.array([float(values[name]) for values in self.values.each])

    def side(self, j: int) -> Floats | None:
        """What model j's side file has for this tensor, in float64. Raises `CheckpointError`."""
        found = self.values.sides[j] if self.values.sides else None
        return found.read() if found is not None else None

    # Whole tensors, for methods that need no pass of their own.

    def array(self, j: int) -> Floats:
        """Model j's tensor in float64; 8 bytes an element."""
        return self._whole(j)

    def base(self) -> Floats:
        """The base's tensor in float64. Raises `MergeError` where there is none."""
        self.need_base()
        return self._whole(self.count)

    def emit(self, result: Floats) -> None:
        """Give the result as one array of the tensor's shape."""
        if np.size(result) != self.size:
            raise MergeError(
                f"{self.name}: the method gave {np.size(result)} elements for the shape {list(self.shape)}; "
                "mend the method"
            )
        self.emit_next(result)

    # Passes.

    def blocks(self, row: int = 1) -> Iterator[tuple[int, list[Floats]]]:
        """Go over all tensors once, in float64 and in the memory of a block: for formulas that numpy can say.

        Args:
            row: A block holds a whole number of rows of so many elements, and at least one.

        Yields:
            The first element, and its block of each model, the base last; all flattened.
        """
        self._passes += 1
        count_met, self._met = not self._met, True
        step = max(1, BLOCK // max(row, 1)) * max(row, 1)
        for begin in range(0, self.size, step):
            count = min(step, self.size - begin)
            parts = []
            for j in range(len(self._inputs)):
                fresh = j not in self._loaded
                part, wrong = self._widened(j, begin, count, first=self._passes == 1 and fresh)
                self._stats[j] += wrong if count_met and fresh else 0
                parts.append(part)
            yield begin, parts

    def emit_next(self, values: Floats) -> None:
        """Give the next elements of the result, row by row; what `blocks` yields, in its order."""
        flat = np.ascontiguousarray(values, np.float64).reshape(-1)
        _, output, code = self._tail
        for begin in range(0, flat.size, BLOCK):
            part = flat[begin : begin + BLOCK]
            self._stats[-1] += self._space.kernels.narrow(part.ctypes.data, len(part), code, output)
            self._write(self._written, len(part))

    def weighted_sum(self, coefficients: Sequence[float] | Floats, *, base: float = 0.0) -> None:
        """Emit the sum of coefficient times tensor; `base` is the base's coefficient."""
        c = np.array([*coefficients, *([base] if self.has_base else [])], np.float64)
        at = c.ctypes.data
        scratch, output, code = self._tail
        for begin, count in self._blocks():
            self._space.kernels.weighted_sum(*self._head, at, count, scratch, output, code, self._stats_at)
            self._write(begin, count)

    def gram(self, *, relative: bool = False) -> Floats:
        """Inner products of all tensors, the base last; or of the differences to the base.

        Returns:
            A matrix [m, m] of float64; m is the number of models, and one more for a base that is
            not subtracted.
        """
        if relative:
            self.need_base()
        m = len(self._inputs) - relative
        out = np.zeros((m, m))
        for _, count in self._blocks():
            self._space.kernels.gram(*self._head, int(relative), count, self._tail[0], out.ctypes.data)
        return out

    def largest(self, keep: Sequence[int], *, skip: Sequence[int] | None = None) -> list[Mask]:
        """Masks that keep the so many largest of each model's differences, after the `skip` largest.

        Equal magnitudes count in the order of their places, so that exactly as many are kept.
        """
        self.need_base()
        lows = self._select([k + s for k, s in zip(keep, skip or [0] * self.count, strict=True)])
        highs = self._select(skip) if skip is not None and any(skip) else [Bound.none()] * self.count
        return [Mask(kind=constants.BAND, high=high, low=low) for high, low in zip(highs, lows, strict=True)]

    def random(self, probabilities: Sequence[float] | Floats) -> list[Mask]:
        """Masks that keep each element with a model's probability."""
        self.need_base()
        return [
            Mask(kind=constants.RANDOM, below=round(float(p) * constants.RANDOM_RANGE)) for p in probabilities
        ]

    def uniforms(self, j: int, begin: int = 0, count: int | None = None) -> Floats:
        """Model j's random numbers in [0, 1) at elements begin .. begin + count: those of `random`."""
        key = _random_key(self._seed, self.name, j)
        return _uniforms(key, begin, self.size - begin if count is None else count)

    def magnitude_sums(self, masks: Sequence[Mask]) -> tuple[Floats, Floats]:
        """The sum of the differences' magnitudes of each model, and of those that its mask keeps."""
        out = np.zeros((self.count, 2))
        told = self._told(masks)
        for begin, count in self._blocks():
            self._space.kernels.masked_sums(
                *self._head,
                count,
                begin,
                *told.addresses,
                self._tail[0],
                out.ctypes.data,
                self._stats_at,
            )
        return out[:, 0], out[:, 1]

    def combine(
        self, masks: Sequence[Mask], *, weights: Floats, scales: Floats | None = None,
        election: Election = Election.NONE, divide: bool = False, scale: float = 1.0,
    ) -> None:  # fmt: skip
        """Emit base + scale * (weighted sum of masked differences), see `combine` in `kernels/source.py`.

        Args:
            masks: What is kept of each model's differences.
            weights: One a model.
            scales: Factors of the differences that do not count as weights.
            election: Which differences may take part.
            divide: Divide by the sum of the weights that took part.
            scale: Factor of the whole change to the base.
        """
        self.need_base()
        told = self._told(masks)
        w, s = np.ascontiguousarray(weights), np.ones(self.count) if scales is None else scales
        scratch, output, code = self._tail
        for begin, count in self._blocks():
            self._space.kernels.combine(
                *self._head, count, begin, *told.addresses, w.ctypes.data, s.ctypes.data, int(election),
                int(divide), scale, scratch, output, code, self._stats_at,
            )  # fmt: skip
            self._write(begin, count)

    # The mechanics.

    def need_base(self) -> None:
        """Raise `MergeError` where there is no base to take differences to."""
        if not self.has_base:
            raise MergeError(f"{self.name}: this method works on differences to a base; give base_model")

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Read block after block of all inputs: first element and number of elements."""
        self._passes += 1
        for begin in range(0, self.size, BLOCK):
            count = min(BLOCK, self.size - begin)
            for j in range(len(self._inputs)):
                self._read(j, begin, count, first=self._passes == 1 and j not in self._loaded)
            yield begin, count

    def _read(self, j: int, begin: int, count: int, *, first: bool) -> None:
        source = self._inputs[j]
        source.read(begin, count, self._views[j])
        checksum = self._input_checksums[j]
        if first and checksum is not None:
            checksum.update(self._buffers[j], count * source.dtype.item_bytes, int(self._addresses[j]))

    def _write(self, begin: int, count: int) -> None:
        data, n = self._space.output, count * self._sink.info.dtype.item_bytes
        self._sink.write(begin, data.data[:n])
        self._checksum.update(data, n, self._tail[1])
        self._written += count

    def _whole(self, j: int) -> Floats:
        if j not in self._loaded:
            flat, wrong = self._widened(j, 0, self.size, first=self._passes == 0)
            self._stats[j] += wrong
            self._loaded[j] = flat.reshape(self.shape)
        return self._loaded[j]

    def _widened(self, j: int, begin: int, count: int, *, first: bool) -> tuple[Floats, int]:
        """Input j's elements from `begin` on in float64, and how many of them are not finite."""
        result, wrong = np.empty(count), 0
        for start in range(0, count, BLOCK):
            part = result[start : start + BLOCK]
            self._read(j, begin + start, len(part), first=first)
            wrong += self._space.kernels.widen(
                int(self._addresses[j]), int(self._codes[j]), len(part), part.ctypes.data
            )
        return result, wrong

    def _select(self, keep: Sequence[int]) -> list[Bound]:
        def count(shift: int, tops: Integers, bins: Integers) -> None:
            for _, size in self._blocks():
                self._space.kernels.histogram(
                    *self._head, 0, size, shift, tops.ctypes.data, bins.ctypes.data, self._tail[0],
                )  # fmt: skip

        def gather(shift: int, tops: Integers, capacity: int) -> Iterator[tuple[Floats, Integers, Integers]]:
            found, places = np.empty((self.count, capacity)), np.empty((self.count, capacity), np.int64)
            counts = np.zeros(self.count, np.int64)
            for begin, size in self._blocks():
                self._space.kernels.collect(
                    *self._head, 0, size, begin, shift, tops.ctypes.data, found.ctypes.data,
                    places.ctypes.data, counts.ctypes.data, capacity, self._tail[0],
                )  # fmt: skip
                yield found, places, counts

        return select([min(k, self.size) for k in keep], size=self.size, count=count, gather=gather)

    def _told(self, masks: Sequence[Mask]) -> _Told:
        keys = [_random_key(self._seed, self.name, j) for j in range(len(masks))]
        limits = [m.below if m.kind == constants.RANDOM else m.high.place for m in masks]
        return _Told(
            kinds=np.array([m.kind for m in masks], np.int64),
            bounds=np.array([[m.high.value, m.low.value] for m in masks]),
            limits=np.array([[limit, m.low.place] for limit, m in zip(limits, masks, strict=True)], np.int64),
            keys=np.array(keys, np.uint64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """Masks as the kernels take them."""

    kinds: Integers
    bounds: Floats
    limits: Integers
    keys: np.ndarray[tuple[int], np.dtype[np.uint64]]

    @property
    def addresses(self) -> tuple[int, int, int, int]:
        return self.kinds.ctypes.data, self.bounds.ctypes.data, self.limits.ctypes.data, self.keys.ctypes.data


def _random_key(seed: int, name: str, model: int) -> int:
    """What a model's random numbers at a tensor begin from."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}\0{model}".encode()).digest()[:8], "little")


def _uniforms(key: int, begin: int, count: int) -> Floats:
    """The kernels' counter-based numbers (`_uniform` in `kernels/source.py`), divided by their range."""
    z = np.uint64(key) + np.arange(begin + 1, begin + count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / constants.RANDOM_RANGE
