"""Merge methods on a bench: small real files in, one tensor out, and how far it is from the right answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modelyard.artifacts.safetensors import DType, layout, read_header
from modelyard.merging.blocks import Sink, Stored, Workspace
from modelyard.merging.method import load_method
from modelyard.merging.tensors import Finding, Tensors, Values

NAME = "model.layers.0.mlp.down_proj.weight"
#: numpy's types of the same bits.
BITS = {DType.BF16: np.uint16, DType.F16: np.float16, DType.F32: np.float32, DType.F64: np.float64}


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """An array as it is stored in a type, and the same values in float64."""

    dtype: DType
    stored: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a merge is made from, beside the arrays."""

    folder: Path
    dtype: DType = DType.F32
    seed: int = 0
    name: str = NAME
    # Shared by merges that one thread makes after another.
    space: Workspace = field(default_factory=Workspace)


def typed(values, dtype: DType) -> Typed:
    """Values rounded to nearest even into a type; numpy does it, and for bfloat16 the halves of float32."""
    values = np.asarray(values, np.float64)
    if dtype is not DType.BF16:
        with np.errstate(over="ignore"):
            stored = values.astype(BITS[dtype])
        return Typed(dtype=dtype, stored=stored, values=stored.astype(np.float64))
    stored = bfloat16(values)
    return Typed(dtype=dtype, stored=stored, values=from_bfloat16(stored))


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16 of each value, the even one of two: from the distances."""
    low = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    candidates = [low + np.uint16(step) for step in (0, 1)] + [low - (low & 0x7FFF > 0).astype(np.uint16)]
    with np.errstate(invalid="ignore"):
        distances = [np.abs(from_bfloat16(c) - values) for c in candidates]
    nearest = np.fmin.reduce(distances)
    best = np.argmax(
        [2 * (d == nearest) + (c & 1 == 0) for d, c in zip(distances, candidates, strict=True)], 0
    )
    return np.choose(best, candidates).astype(np.uint16)


def from_bfloat16(stored: np.ndarray) -> np.ndarray:
    return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@contextmanager
def opened(
    bench: Bench, models: Sequence[Typed], base: Typed | None, settings: Mapping[str, object], method: str
) -> Iterator[Tensors]:
    """The tensors of a merge, each input in a file of its own, the output in `out.safetensors`."""
    shape, descriptors = models[0].stored.shape, []
    start, (info,), size = layout(
        [(bench.name, bench.dtype, shape)], path=bench.folder / "out.safetensors", metadata={}
    )
    info.path.write_bytes(start + b"\xff" * (size - len(start)))
    try:
        files = [written(bench, f"{j}.safetensors", model) for j, model in enumerate(models)]
        files += [written(bench, "base.safetensors", base)] if base else []
        descriptors = [os.open(file, os.O_RDONLY) for file in files] + [os.open(info.path, os.O_RDWR)]
        sources = [
            Stored(info=read_header(file)[0][0], descriptor=d)
            for file, d in zip(files, descriptors, strict=False)
        ]
        yield Tensors(
            sources=sources[: len(models)],
            base=sources[-1] if base else None,
            sink=Sink(info=info, descriptor=descriptors[-1]),
            values=values_of(method, settings, len(models)),
            workspace=bench.space,
            seed=bench.seed,
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def written(bench: Bench, file: str, tensor: Typed) -> Path:
    path = bench.folder / file
    start, _, _ = layout([(bench.name, tensor.dtype, tensor.stored.shape)], path=path, metadata={})
    path.write_bytes(start + tensor.stored.tobytes())
    return path


def values_of(method: str, settings: Mapping[str, object], count: int) -> Values:
    """Settings with the method's defaults: a list gives each model its own."""
    parameters = load_method(method).parameters
    unknown = set(settings) - {p.name for p in parameters}
    assert not unknown, f"{method} has no {unknown}"
    given = {p.name: settings.get(p.name, p.default) for p in parameters}
    assert None not in given.values(), f"{method} needs {given}"
    each = [
        {
            p.name: given[p.name][j] if isinstance(given[p.name], list) else given[p.name]
            for p in parameters
            if p.per_model
        }
        for j in range(count)
    ]
    return Values(common={p.name: given[p.name] for p in parameters if not p.per_model}, each=each)


def merged(
    bench: Bench, method: str, models: Sequence[Typed], base: Typed | None = None, **settings: object
) -> Typed:
    """What the method makes of real files, read back from the output's file."""
    return merged_and_found(bench, method, models, base, **settings)[0]


def merged_and_found(
    bench: Bench, method: str, models: Sequence[Typed], base: Typed | None = None, **settings: object
) -> tuple[Typed, Finding]:
    """The same, and what was met on the way."""
    with opened(bench, models, base, settings, method) as tensors:
        with np.errstate(all="ignore"):  # what is not finite is in the finding
            load_method(method).run(tensors)
        finding = tensors.finding()
    path = bench.folder / "out.safetensors"
    info = read_header(path)[0][0]
    stored = np.frombuffer(path.read_bytes(), BITS[bench.dtype], offset=info.offset).reshape(info.shape)
    wide = from_bfloat16(stored) if bench.dtype is DType.BF16 else stored.astype(np.float64)
    return Typed(dtype=bench.dtype, stored=stored, values=wide), finding


def ulps(out: Typed, expected: Typed, *, rounding: float = 0.0) -> int:
    """How many steps of the type lie between two arrays at most; values as near as `rounding` are equal."""
    steps = np.abs(_order(out.stored) - _order(expected.stored))
    return int(steps[np.abs(out.values - expected.values) > rounding].max(initial=0))


def _order(stored: np.ndarray) -> np.ndarray:
    """The numbers of floats in the order of their values; both zeros are 0."""
    bits = stored.view(f"i{stored.dtype.itemsize}").astype(np.int64)
    low = np.int64(-1) << (8 * stored.dtype.itemsize - 1)
    return np.where(bits < 0, low - bits, bits)
