"""Measuring tensors of several models together, block by block, by a few threads.

What is measured is given as a function of one tensor's sources; nothing here knows what it is for.
Memory does not depend on the models' size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.merging.blocks import BLOCK, CODES, Floats, OpenFiles, Source, Workspace
from modelyard.merging.engine import Progress
from modelyard.merging.kernels.constants import F64
from modelyard.merging.lora import read_adapter
from modelyard.merging.models import Model
from modelyard.merging.parts import Part
from modelyard.merging.recipe import ModelRef

R = TypeVar("R", covariant=True)
Observer = Callable[[Progress], None]


class Measure(Protocol[R]):
    """Measures one tensor of several models; called from several threads."""

    def __call__(self, sources: Sequence[Source], size: int) -> R: ...


def open_model(text: str) -> Model:
    """A model that is named as PATH or PATH+LORA.

    Raises:
        CheckpointError: It cannot be read.
    """
    path, plus, lora = text.rpartition("+")
    if not plus or Path(text).exists():
        return open_reference(ModelRef(path=text), Path(text))
    return open_reference(ModelRef(path=path, lora=lora), Path(path))


def open_reference(ref: ModelRef, path: Path) -> Model:
    """A model of a recipe, of which the checkpoint lies at `path`. Raises `CheckpointError`."""
    adapter = read_adapter(Path(ref.lora).expanduser()) if ref.lora else None
    return Model(ref=ref, checkpoint=open_checkpoint(path), adapter=adapter)


def comparable(models: Iterable[Model], name: str) -> bool:
    """Whether all models have the tensor, in one shape and with elements that are floating-point numbers."""
    kept = list(models)
    infos = [model.info(name) for model in kept]
    return all(info is not None and info.dtype.floating for info in infos) and (
        len({shape_text(model, name) for model in kept}) == 1
    )


def parts_of(models: Iterable[Model], name: str) -> list[Part]:
    """What each of the models that have the tensor gives to it."""
    return [part for model in models if (part := model.part(name)) is not None]


def shape_text(model: Model, name: str) -> str:
    """The shape of a model's tensor; `missing` for none."""
    part = model.part(name)
    return "x".join(map(str, part.shape)) or "scalar" if part else "missing"


def measured(
    jobs: Mapping[str, Sequence[Part]], measure: Measure[R], *, threads: int, observe: Observer
) -> dict[str, R]:
    """Measure every tensor of which the parts are given; the same for any number of threads.

    Raises:
        CheckpointError: A tensor cannot be read.
    """
    files, results = OpenFiles(), {}
    done, whole = 0, sum(part.read_bytes for parts in jobs.values() for part in parts)
    sources = [[part.open(files) for part in parts] for parts in jobs.values()]
    sizes = [math.prod(parts[0].shape) for parts in jobs.values()]
    try:
        with ThreadPoolExecutor(threads) as pool:
            for (name, parts), result in zip(jobs.items(), pool.map(measure, sources, sizes), strict=True):
                results[name] = result
                done += sum(part.read_bytes for part in parts)
                observe(
                    Progress(
                        name=name, tensors=len(results), of_tensors=len(jobs), bytes=done, of_bytes=whole
                    )
                )
    finally:
        files.close()
    return results


def float_blocks(sources: Sequence[Source], size: int, space: Workspace) -> Iterator[tuple[int, Floats, int]]:
    """Blocks of tensors in float64: first element, [source, element], and how many are not finite.

    The array is used again for the next block.
    """
    rows = np.empty((len(sources), min(BLOCK, size)))
    for begin in range(0, size, BLOCK):
        count = min(BLOCK, size - begin)
        wrong = 0
        for j, source in enumerate(sources):
            raw = space.input(j)
            source.read(begin, count, raw.data)
            wrong += space.kernels.widen(raw.ctypes.data, CODES[source.dtype], count, rows[j].ctypes.data)
        yield begin, rows[:, :count], wrong


def inner_products(rows: Sequence[Floats] | Floats, space: Workspace, *, relative: bool = False) -> Floats:
    """The Gram matrix of float64 rows, or of their differences to the last one."""
    m = len(rows)
    addresses = np.array([row.ctypes.data for row in rows], np.uint64)
    codes = np.full(m, F64, np.int64)
    out = np.zeros((m - relative, m - relative))
    space.kernels.gram(
        addresses.ctypes.data, codes.ctypes.data, m, int(relative), len(rows[0]),
        space.scratch(m).ctypes.data, out.ctypes.data,
    )  # fmt: skip
    return out


def zeroed(rows: Floats) -> int:
    """Set elements that are not finite in any row to zero in all; how many there are."""
    lost = ~np.isfinite(rows).all(axis=0)
    rows[:, lost] = 0.0
    return int(np.count_nonzero(lost))
