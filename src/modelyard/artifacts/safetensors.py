"""The safetensors format: reading headers with distrust, and laying out files that are still to be written.

A file is eight bytes of header length (little endian), a JSON header, and the tensors' bytes. Only
the header is read here; who wants a tensor's bytes reads them at its offset. Format:
https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from modelyard.core.errors import CheckpointError

#: The largest header that the format allows, in bytes.
MOST_HEADER_BYTES = 100_000_000
_MOST_ELEMENTS = 2**62
_ALIGNMENT = 8


class DType(Enum):
    """An element type: its name in a safetensors header, its bytes, and its name in PyTorch."""

    BF16 = ("BF16", 2, "bfloat16")
    F16 = ("F16", 2, "float16")
    F32 = ("F32", 4, "float32")
    F64 = ("F64", 8, "float64")
    F8_E4M3 = ("F8_E4M3", 1, "float8_e4m3fn")
    F8_E5M2 = ("F8_E5M2", 1, "float8_e5m2")
    I64 = ("I64", 8, "int64")
    I32 = ("I32", 4, "int32")
    I16 = ("I16", 2, "int16")
    I8 = ("I8", 1, "int8")
    U64 = ("U64", 8, "uint64")
    U32 = ("U32", 4, "uint32")
    U16 = ("U16", 2, "uint16")
    U8 = ("U8", 1, "uint8")
    BOOL = ("BOOL", 1, "bool")

    def __init__(self, word: str, item_bytes: int, torch_name: str) -> None:
        self.word = word
        self.item_bytes = item_bytes
        self.torch_name = torch_name

    @property
    def floating(self) -> bool:
        """Whether arithmetic makes sense; integers and booleans are only copied."""
        return self in _FLOATING


_FLOATING = frozenset({DType.BF16, DType.F16, DType.F32, DType.F64, DType.F8_E4M3, DType.F8_E5M2})
_BY_WORD = {dtype.word: dtype for dtype in DType}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where one tensor lies: row-major, contiguous, little endian."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    path: Path
    # From the start of the file, in bytes.
    offset: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The number of bytes."""
        return self.size * self.dtype.item_bytes


def dtype_by_torch_name(name: str) -> DType | None:
    """The type that PyTorch calls so, with or without `torch.` before it; None for an unknown one."""
    plain = name.removeprefix("torch.")
    return next((dtype for dtype in DType if dtype.torch_name == plain), None)


def read_header(path: Path) -> tuple[list[TensorInfo], dict[str, str]]:
    """The tensors of a file in the order of their bytes, and its metadata.

    Raises:
        CheckpointError: The file cannot be read, is cut short, or its header does not describe its
            bytes exactly: no holes, no overlaps, nothing beyond the end.
    """
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_ALIGNMENT)
            if len(start) < _ALIGNMENT:
                raise _broken(path, f"has {file_bytes} bytes, too few for a header")
            (length,) = struct.unpack("<Q", start)
            if length > min(MOST_HEADER_BYTES, file_bytes - _ALIGNMENT):
                raise _broken(path, f"says that its header has {length} bytes, of {file_bytes} in the file")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give a safetensors file that you may read"
        ) from error
    header = _parse(path, text)
    metadata = _metadata(path, header.pop("__metadata__", None))
    data = _ALIGNMENT + length
    placed = [_entry(path, name, entry) for name, entry in header.items()]
    return _tensors(path, placed, data=data, data_bytes=file_bytes - data), metadata


def layout(
    tensors: Iterable[tuple[str, DType, Sequence[int]]], *, path: Path, metadata: Mapping[str, str]
) -> tuple[bytes, list[TensorInfo], int]:
    """Place tensors one after another in a file to be written.

    Args:
        tensors: Name, type and shape, in the order of their bytes.
        path: Where the file will be.
        metadata: Text to keep in its header.

    Returns:
        The bytes that the file begins with, where each tensor goes, and the whole file's bytes.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    placed: list[tuple[str, DType, tuple[int, ...], int]] = []
    end = 0
    for name, dtype, shape in tensors:
        begin, end = end, end + math.prod(shape) * dtype.item_bytes
        header[name] = {"dtype": dtype.word, "shape": list(shape), "data_offsets": [begin, end]}
        placed.append((name, dtype, tuple(shape), begin))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    start = struct.pack("<Q", len(text)) + text
    infos = [
        TensorInfo(name=name, dtype=dtype, shape=shape, path=path, offset=len(start) + begin)
        for name, dtype, shape, begin in placed
    ]
    return start, infos, len(start) + end


def _broken(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path}: {problem}; the file is damaged or not safetensors: fetch it again")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(pairs)
        if len(kept) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise _broken(path, f"names {twice[:80]!r} twice in its header")
        return kept

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
        if b"\\u" in text:  # half a character can be written so, but not stored again
            json.dumps(header, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"has a header that is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _broken(path, "has a header that is not a JSON object")
    return header


def _metadata(path: Path, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return value
    raise _broken(path, "has metadata that is not text")


def _entry(path: Path, name: str, entry: object) -> tuple[str, DType, tuple[int, ...], int, int]:
    """One tensor's name, type, shape, first byte and the one after the last, within the data."""
    fields = entry if isinstance(entry, dict) else {}
    word = fields.get("dtype")
    dtype = _BY_WORD.get(word) if isinstance(word, str) else None
    if dtype is None:
        known = ", ".join(_BY_WORD)
        raise CheckpointError(
            f"{path}: {name[:80]}: dtype {str(word)[:40]!r} is not known; use one of {known}"
        )
    shape, offsets = _whole_numbers(fields.get("shape")), _whole_numbers(fields.get("data_offsets"))
    if shape is None or offsets is None or len(offsets) != 2:
        raise _broken(path, f"{name[:80]}: its shape and data_offsets are not lists of whole numbers")
    size = 1
    for extent in shape:
        size *= extent
        if size > _MOST_ELEMENTS:
            raise _broken(path, f"{name[:80]}: has a shape beyond all measure")
    begin, end = offsets
    if end - begin != size * dtype.item_bytes:
        raise _broken(
            path,
            f"{name[:80]}: {end - begin} bytes are given for {size} elements of {dtype.item_bytes} bytes",
        )
    return name, dtype, shape, begin, end


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(type(item) is int and 0 <= item <= _MOST_ELEMENTS for item in value):
        return tuple(value)
    return None


def _tensors(
    path: Path, placed: list[tuple[str, DType, tuple[int, ...], int, int]], *, data: int, data_bytes: int
) -> list[TensorInfo]:
    placed.sort(key=lambda item: (item[3], item[4]))
    reached = 0
    found = []
    for name, dtype, shape, begin, end in placed:
        if begin != reached:
            raise _broken(path, f"{name[:80]}: begins at byte {begin} where byte {reached} was next")
        reached = end
        found.append(TensorInfo(name=name, dtype=dtype, shape=shape, path=path, offset=data + begin))
    if reached != data_bytes:
        raise _broken(path, f"holds {data_bytes} bytes of tensors where its header describes {reached}")
    return found
