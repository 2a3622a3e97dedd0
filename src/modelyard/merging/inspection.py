"""What a checkpoint holds: its architecture as the names tell it, its sizes, and on demand its values.

Headers and JSON tell everything but the values; these are read once, block by block. How it is shown
is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.artifacts.checkpoints import Checkpoint
from modelyard.artifacts.safetensors import TensorInfo
from modelyard.merging.architecture import Role, embedding_name, layer_counts, place_of
from modelyard.merging.blocks import Source, Stored, Workspace
from modelyard.merging.differences import grouped, module_of
from modelyard.merging.engine import read_record
from modelyard.merging.measuring import Observer, float_blocks, inner_products, measured, zeroed
from modelyard.merging.output import RECORD
from modelyard.merging.parts import StoredPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All tensors of one kind: the same module in every layer, or one tensor outside of the layers."""

    # `layer`, or the role of a tensor outside of the layers.
    role: str
    module: str
    tensors: int
    parameters: int
    bytes: int
    # All that occur, in the order in which they are met.
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the record of a merge says about where a checkpoint comes from."""

    method: str
    modelyard: str
    # Each parent's path, number of tensors read, and digest of their checksums.
    parents: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What headers, config and record tell."""

    path: Path
    model_type: str | None
    architectures: tuple[str, ...]
    # Layers of each stack, by the names.
    layers: Mapping[str, int]
    parameters: int
    bytes: int
    # File names with their bytes of tensors.
    shards: Mapping[str, int]
    # Parameters by element type.
    dtypes: Mapping[str, int]
    embedding: str | None
    vocabulary_rows: int | None
    head: str | None
    kinds: tuple[Kind, ...]
    origin: Origin | None

    @property
    def tied(self) -> bool:
        """Whether the embedding serves as the head, none being stored."""
        return self.embedding is not None and self.head is None

    @property
    def tensors(self) -> int:
        """The number of tensors."""
        return sum(kind.tensors for kind in self.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What the elements of one tensor are; norm and extremes are of the finite ones."""

    nan: int
    infinite: int
    zeros: int
    size: int
    norm: float
    largest: float
    # Rows of an embedding or head that are all zero; None for other tensors.
    dead_rows: int | None

    @property
    def dead(self) -> bool:
        """Whether all elements are zero."""
        return self.size > 0 and self.zeros == self.size

    @property
    def root_mean_square(self) -> float:
        """The norm by the root of the number of elements."""
        return self.norm / math.sqrt(self.size) if self.size else 0.0


def inspect(checkpoint: Checkpoint) -> Inspection:
    """Tell what a checkpoint holds without reading a tensor.

    Raises:
        MergeError: It has a record of a merge that cannot be read.
    """
    tensors, config = checkpoint.tensors, checkpoint.config
    embedding = embedding_name(tensors)
    heads = (name for name in tensors if place_of(name).role is Role.HEAD and name.endswith(".weight"))
    return Inspection(
        path=checkpoint.path,
        model_type=config.get("model_type"),
        architectures=tuple(config.get("architectures") or ()),
        layers=layer_counts(tensors),
        parameters=sum(info.size for info in tensors.values()),
        bytes=checkpoint.bytes,
        shards=_totals((info.path.name, info.bytes) for info in tensors.values()),
        dtypes=_totals((info.dtype.word, info.size) for info in tensors.values()),
        embedding=embedding,
        vocabulary_rows=tensors[embedding].shape[0] if embedding else None,
        head=next(heads, None),
        kinds=_kinds(tensors),
        origin=_origin(checkpoint.folder),
    )


def inspect_values(
    checkpoint: Checkpoint, *, threads: int = 1, observe: Observer = lambda _item: None
) -> dict[str, Values]:
    """Read every tensor of floating-point numbers and tell what its elements are.

    Raises:
        CheckpointError: A tensor cannot be read.
    """
    jobs = {name: [StoredPart(info=info)] for name, info in checkpoint.tensors.items() if info.dtype.floating}
    return measured(jobs, _values, threads=threads, observe=observe)


def _kinds(tensors: Mapping[str, TensorInfo]) -> tuple[Kind, ...]:
    groups = grouped((_kind_key(name), info) for name, info in tensors.items())
    return tuple(
        Kind(
            role=role,
            module=module,
            tensors=len(infos),
            parameters=sum(info.size for info in infos),
            bytes=sum(info.bytes for info in infos),
            shapes=tuple(dict.fromkeys(info.shape for info in infos)),
            dtypes=tuple(dict.fromkeys(info.dtype.word for info in infos)),
        )
        for (role, module), infos in groups.items()
    )


def _kind_key(name: str) -> tuple[str, str]:
    place = place_of(name)
    if place.layer is None:
        return place.role.value, name
    return "layer", f"{place.stack}.*.{module_of(name)}"


def _totals(entries: Iterable[tuple[str, int]]) -> dict[str, int]:
    return {key: sum(values) for key, values in grouped(entries).items()}


def _origin(folder: Path) -> Origin | None:
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder)
    return Origin(
        method=record["identity"]["method"], modelyard=record["modelyard"], parents=record["parents"]
    )


def _values(sources: Sequence[Source], size: int) -> Values:
    """The values of one stored tensor."""
    (source,) = sources
    width = _row_width(source)
    live = np.zeros(size // width if width else 0, bool)
    space, square, largest = Workspace(), 0.0, 0.0
    nan = infinite = zeros = 0
    for begin, rows, wrong in float_blocks(sources, size, space):
        block = rows[0]
        places = np.flatnonzero(block)
        zeros += len(block) - len(places)
        if width:
            live[(begin + places) // width] = True
        if wrong:
            nan += int(np.isnan(block).sum())
            infinite += int(np.isinf(block).sum())
            zeroed(rows)
        square += float(inner_products(rows, space)[0, 0])
        largest = max(largest, float(block.max()), -float(block.min()))
    return Values(
        nan=nan,
        infinite=infinite,
        zeros=zeros,
        size=size,
        norm=math.sqrt(square),
        largest=largest,
        dead_rows=int((~live).sum()) if width else None,
    )


def _row_width(source: Source) -> int:
    """Elements of a token's row; 0 where rows are not tokens."""
    if not isinstance(source, Stored) or len(source.info.shape) != 2:
        return 0
    return source.info.shape[1] if place_of(source.info.name).role is not Role.OTHER else 0
