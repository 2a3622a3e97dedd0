"""Which model a checkpoint is, from a few windows of every tensor: cheap for a model of any size.

Heads on another model than their own draft nothing right and raise no error, so that they carry the
fingerprint of their base. Any training or merging changes nearly every value of a tensor that it touches, so
that the windows suffice. Values are compared as bfloat16: a model has one fingerprint, stored in float32 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.artifacts.safetensors import DType, TensorInfo
from modelyard.core.digests import digest_bytes, digest_json

#: Elements in a window; one lies at the start of a tensor, one in the middle, one at the end.
_WINDOW = 1024
_OUTPUT = "lm_head.weight"


def fingerprint(checkpoint: Path) -> str:
    """The digest of names, shapes and windows of the tensors of a checkpoint folder.

    Raises:
        CheckpointError: It cannot be read.
    """
    found = open_checkpoint(checkpoint)
    tied = bool(found.config.get("tie_word_embeddings", False))
    told = {
        name: [list(info.shape), digest_bytes(b"".join(_windows(info)))]
        for name, info in found.tensors.items()
        if info.dtype.floating and not (tied and name == _OUTPUT)
    }
    output = told.pop(_OUTPUT, None)
    if output is not None and output not in told.values():  # else tied, which some configs leave unsaid
        told[_OUTPUT] = output
    return digest_json(told)


def _windows(info: TensorInfo) -> Iterator[bytes]:
    last = max(info.size - _WINDOW, 0)
    with info.path.open("rb") as file:
        for start in sorted({0, last // 2, last}):
            file.seek(info.offset + start * info.dtype.item_bytes)
            yield _rounded(info.dtype, file.read(min(_WINDOW, info.size) * info.dtype.item_bytes))


def _rounded(dtype: DType, data: bytes) -> bytes:
    """Values as bfloat16, those between two of them to the even one; 8-bit floats as they are."""
    if dtype is DType.BF16 or dtype.item_bytes == 1:
        return data
    number = {DType.F16: np.float16, DType.F32: np.float32, DType.F64: np.float64}[dtype]
    bits: NDArray[np.uint32] = np.frombuffer(data, number).astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
