"""What a method reads of each model beside its tensors: a safetensors file that a parameter names.

RegMean's inner products of activations are such. The tensors of the file bear the names of the
model's. Their headers are read when a merge is planned, their bytes when a tensor is merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modelyard.artifacts.safetensors import DType, TensorInfo, read_header
from modelyard.core.errors import CheckpointError
from modelyard.core.faults import Faults
from modelyard.merging.blocks import Floats

_TYPES = {DType.F32: "<f4", DType.F64: "<f8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SideTensor:
    """A tensor of a side file."""

    info: TensorInfo

    def read(self) -> Floats:
        """All of it in float64.

        Raises:
            CheckpointError: It cannot be read, or has values that are not finite.
        """
        info = self.info
        try:
            stored = np.fromfile(info.path, _TYPES[info.dtype], info.size, offset=info.offset)
        except OSError as error:
            raise CheckpointError(f"{info.path}: {error.strerror}; leave the file where it is") from error
        if len(stored) < info.size:
            raise CheckpointError(f"{info.path}: ends within {info.name}; it was cut short while it was read")
        if not np.isfinite(stored).all():
            raise CheckpointError(f"{info.path}: {info.name} has NaN or infinite values; compute it again")
        return stored.astype(np.float64).reshape(info.shape)


@dataclass(slots=True, kw_only=True)
class SideFiles:
    """The side files of a merge, each opened once; `faults` collects what is wrong with them."""

    folder: Path
    faults: Faults
    _opened: dict[str, Mapping[str, TensorInfo]] = field(default_factory=dict)
    _asked: set[tuple[str, str]] = field(default_factory=set)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, in the order in which they were met."""
        return tuple(self.folder / path for path in self._opened)

    def tensor(self, path: str, name: str, shape: tuple[int, ...]) -> SideTensor | None:
        """What a file has under a name; None, with a fault, where it is of another shape or type."""
        info = self._tensors(path).get(name)
        self._asked.add((path, name))
        if info is None:
            return None
        if info.dtype not in _TYPES:
            self.faults.add(name, info.dtype.word, f"is of that type in {path}", "store float32 or float64")
            return None
        if info.shape != shape:
            problem = f"has that shape in {path}, where {list(shape)} is needed"
            self.faults.add(name, list(info.shape), problem, "give the file that belongs to the model")
            return None
        return SideTensor(info=info)

    def refuse_unused(self) -> None:
        """A fault for each file with tensors that nothing asked for: their names are misspelt."""
        for path, tensors in self._opened.items():
            unused = [name for name in tensors if (path, name) not in self._asked]
            if unused:
                told = f"{len(unused)} of {len(tensors)} tensors, such as {unused[0]}"
                self.faults.add(path, told, "belong to no matrix of the models", "use the weights' names")

    def _tensors(self, path: str) -> Mapping[str, TensorInfo]:
        if path not in self._opened:
            self._opened[path] = {}
            try:
                self._opened[path] = {info.name: info for info in read_header(self.folder / path)[0]}
            except CheckpointError as error:
                self.faults.add("parameters", path, str(error), "name a safetensors file")
        return self._opened[path]
