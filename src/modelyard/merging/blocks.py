"""Reading and writing tensors in blocks: where elements come from, where they go, and what a thread works in.

Blocks are read with `pread` into a few buffers that are used again, not mapped: that costs half the
CPU time of page faults, needs no memory beyond the buffers, and a file that is cut short while it
is read is an error, not a signal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from modelyard.artifacts.safetensors import DType, TensorInfo
from modelyard.core.errors import CheckpointError
from modelyard.merging.kernels import constants
from modelyard.merging.kernels.constants import scratch_size
from modelyard.merging.kernels.library import Kernels, load_kernels

#: Elements of a block: with two inputs and the output in bfloat16 it fits a second-level cache of one MiB.
BLOCK = 1 << 17

CODES = {
    DType.BF16: constants.BF16,
    DType.F16: constants.F16,
    DType.F32: constants.F32,
    DType.F64: constants.F64,
    DType.F8_E4M3: constants.E4M3,
    DType.F8_E5M2: constants.E5M2,
}
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class OpenFiles:
    """Files that are read by several threads, each opened once."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}

    def descriptor(self, path: Path) -> int:
        """The descriptor of a file. Raises `CheckpointError`; not for use by two threads at once."""
        if path not in self._descriptors:
            try:
                self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise CheckpointError(
                    f"{path}: cannot be opened ({error.strerror}); give a file that you may read"
                ) from error
        return self._descriptors[path]

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


class Source(Protocol):
    """Where the elements of one input tensor come from."""

    @property
    def dtype(self) -> DType:
        """The type in which `read` gives elements."""
        ...

    def read(self, begin: int, count: int, buffer: memoryview) -> None:
        """Fill the buffer with elements begin .. begin + count, row by row; any thread may call it.

        Raises:
            CheckpointError: They cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor as it lies in a file."""

    info: TensorInfo
    descriptor: int

    @property
    def dtype(self) -> DType:
        """The stored type."""
        return self.info.dtype

    def read(self, begin: int, count: int, buffer: memoryview) -> None:
        """See `Source`."""
        wanted, done = count * self.info.dtype.item_bytes, 0
        start = self.info.offset + begin * self.info.dtype.item_bytes
        while done < wanted:
            got = os.preadv(self.descriptor, [buffer[done:wanted]], start + done)
            if got == 0:
                raise CheckpointError(
                    f"{self.info.path}: ends within {self.info.name}; it was cut short while it was read"
                )
            done += got


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A tensor whose elements are computed when they are asked for, such as weights with an adapter added."""

    # Elements begin .. begin + count of the flattened tensor, in float64.
    compute: Callable[[int, int], Floats]

    @property
    def dtype(self) -> DType:
        """Always float64."""
        return DType.F64

    def read(self, begin: int, count: int, buffer: memoryview) -> None:
        """See `Source`."""
        np.frombuffer(buffer, np.float64, count)[:] = self.compute(begin, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """Where the elements of one output tensor go."""

    info: TensorInfo
    descriptor: int

    def write(self, begin: int, data: memoryview) -> None:
        """Write elements from `begin` on; an `OSError` such as a full disk passes through."""
        start, done = self.info.offset + begin * self.info.dtype.item_bytes, 0
        while done < len(data):
            done += os.pwrite(self.descriptor, data[done:], start + done)


class Workspace:
    """What one thread works in: buffers of a block for each input and for the output, used again."""

    def __init__(self) -> None:
        self.kernels: Kernels = load_kernels()
        self._buffers: list[npt.NDArray[np.uint8]] = []
        self._scratch: Floats = np.empty(0)
        self._output: npt.NDArray[np.uint8] = np.empty(BLOCK * 8, np.uint8)

    def input(self, j: int) -> npt.NDArray[np.uint8]:
        """The bytes of input j's block."""
        while len(self._buffers) <= j:
            self._buffers.append(np.empty(BLOCK * 8, np.uint8))
        return self._buffers[j]

    @property
    def output(self) -> npt.NDArray[np.uint8]:
        """The bytes of the output's block."""
        return self._output

    def scratch(self, m: int) -> Floats:
        """What the kernels need for m inputs."""
        if len(self._scratch) < scratch_size(m):
            self._scratch = np.empty(scratch_size(m))
        return self._scratch
