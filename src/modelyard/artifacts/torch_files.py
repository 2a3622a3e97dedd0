"""PyTorch checkpoint files (.bin, .pt): where their tensors lie, without executing what they contain.

PyTorch writes a zip archive: a pickle that describes the tensors, and one uncompressed entry for
each storage. The pickle is read by an unpickler that knows only tensors, parameters and ordered
mappings and refuses all other names, so that a file cannot run code; the storages are read in
place, like safetensors. Format: https://docs.pytorch.org/docs/stable/notes/serialization.html.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.artifacts.safetensors import DType, TensorInfo
from modelyard.core.errors import CheckpointError

_REMEDY = "convert it to safetensors"
_STORAGES = {
    "BFloat16Storage": DType.BF16,
    "HalfStorage": DType.F16,
    "FloatStorage": DType.F32,
    "DoubleStorage": DType.F64,
    "LongStorage": DType.I64,
    "IntStorage": DType.I32,
    "ShortStorage": DType.I16,
    "CharStorage": DType.I8,
    "ByteStorage": DType.U8,
    "BoolStorage": DType.BOOL,
}
#: Where training scripts put the state dict within what they save.
_NESTS = ("state_dict", "model")
_ZIP_START = b"PK\x03\x04"
# Signature, 22 bytes that the central directory repeats, the bytes of the name and of the extra field.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1
_MOST_DESCRIPTION_BYTES = 100_000_000
_MOST_ELEMENTS = 2**62
# What a zip directory or a pickle that is not as it should be makes the standard library raise.
_DAMAGE = (
    *(zipfile.BadZipFile, struct.error, pickle.UnpicklingError, ArithmeticError, AttributeError, EOFError),
    *(ImportError, LookupError, MemoryError, RuntimeError, TypeError, ValueError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An uncompressed entry of the archive: its first byte in the file, and its bytes."""

    offset: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A tensor as the pickle describes it; nothing in it has been checked."""

    # What was given to `persistent_load`: ("storage", type, key, location, elements).
    storage: Any
    offset: Any
    shape: Any
    strides: Any
    # Marks such as a pending negation or conjugation.
    marks: Any


def read_torch_file(path: Path) -> list[TensorInfo]:
    """The tensors of a file written by `torch.save`, in the order of their bytes.

    A state dict, or a mapping that holds one as "state_dict" or "model". Tied weights, which share a
    storage, are given as two tensors of the same bytes.

    Raises:
        CheckpointError: The file is not such an archive, names anything but tensors, or holds a
            tensor that is not contiguous.
    """
    try:
        with path.open("rb") as file:
            _expect_zip(path, file.read(len(_ZIP_START)))
            with zipfile.ZipFile(file) as archive:
                root = _root(path, archive)
                entries = _entries(path, archive, file)
                _expect_little_endian(path, archive, entries, root)
                description = _read(path, archive, entries, f"{root}/data.pkl")
        loaded = _Unpickler(path, description).load()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); give a PyTorch file that you may read"
        ) from error
    except _DAMAGE as error:
        shown = str(error)[:120]
        raise _refusal(path, f"is cut short or damaged ({type(error).__name__}: {shown})") from error
    storages = {
        name.removeprefix(f"{root}/data/"): entry
        for name, entry in entries.items()
        if name.startswith(f"{root}/data/")
    }
    found = [_info(path, name, view, storages) for name, view in _state_dict(path, loaded).items()]
    return sorted(found, key=lambda info: info.offset)


def _refusal(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path}: {problem}; {_REMEDY}")


def _expect_zip(path: Path, start: bytes) -> None:
    if start == _ZIP_START:
        return
    if start[:1] == pickle.PROTO:
        raise _refusal(path, "is in the format of PyTorch before 1.6, which is not a zip archive")
    raise _refusal(path, "is cut short or not a zip archive as torch.save writes it")


def _root(path: Path, archive: zipfile.ZipFile) -> str:
    """The folder in the archive that holds everything; PyTorch names it after the file."""
    names = archive.namelist()
    roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise _refusal(path, f"holds {len(roots)} entries named data.pkl where torch.save writes one")
    if len(set(names)) < len(names):
        raise _refusal(path, "names an entry of its zip archive twice")
    return roots[0]


def _entries(path: Path, archive: zipfile.ZipFile, file: io.BufferedReader) -> dict[str, _Entry]:
    """Where the content of each entry lies: after its local header, whose length varies."""
    file_bytes = file.seek(0, io.SEEK_END)
    entries = {}
    for item in archive.infolist():
        name = item.filename[:80]
        if item.compress_type != zipfile.ZIP_STORED or item.flag_bits & _ENCRYPTED:
            raise _refusal(path, f"its entry {name!r} is compressed or encrypted")
        file.seek(item.header_offset)
        start, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        offset = item.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        whole = item.compress_size == item.file_size and offset + item.file_size <= file_bytes
        if start != _ZIP_START or not whole:
            raise _refusal(path, f"is cut short or damaged: its entry {name!r} is not where it should be")
        entries[item.filename] = _Entry(offset=offset, bytes=item.file_size)
    return entries


def _read(path: Path, archive: zipfile.ZipFile, entries: Mapping[str, _Entry], name: str) -> bytes:
    if entries[name].bytes > _MOST_DESCRIPTION_BYTES:
        raise _refusal(path, f"its entry {name[:80]!r} has more than {_MOST_DESCRIPTION_BYTES} bytes")
    return archive.read(name)


def _expect_little_endian(
    path: Path, archive: zipfile.ZipFile, entries: Mapping[str, _Entry], root: str
) -> None:
    name = f"{root}/byteorder"
    order = _read(path, archive, entries, name) if name in entries else b"little"  # absent before 2.1
    if order != b"little":
        raise _refusal(path, f"has byte order {order[:20]!r} where 'little' is required")


class _Mapping(dict[Any, Any]):
    """Stands for an OrderedDict: begins empty, and has no attributes that a pickle could set."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Passes over `_metadata`, the versions of PyTorch's modules."""


class _Unpickler(pickle.Unpickler):
    """Reads a description of tensors; whatever else is named is refused, and never imported."""

    def __init__(self, path: Path, description: bytes) -> None:
        for opcode, argument, _ in pickletools.genops(description):
            # The standard unpickler reserves memory up to the highest place that is asked for.
            if opcode.name.endswith("PUT") and isinstance(argument, int) and argument > len(description):
                raise _refusal(path, f"asks for place {argument} in a pickle of {len(description)} bytes")
        super().__init__(io.BytesIO(description))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the pickle.

        Everything given is immutable or made anew for each call, because a pickle may also set
        attributes of what it names.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return _Mapping
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _rebuild_tensor()
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _rebuild_parameter()
        raise _refusal(self._path, f"names {f'{module}.{name}'[:120]!r}, which was not executed")

    def persistent_load(self, pid: Any) -> Any:
        """A storage, as described; it is looked up when all is read."""
        return pid


def _rebuild_tensor() -> Callable[..., _View]:
    def rebuild(  # the order in which PyTorch writes them
        storage: object, offset: object, shape: object, strides: object, *rest: object
    ) -> _View:
        # Then whether it requires a gradient, its hooks, and since 2.0 its marks.
        marks = rest[2] if len(rest) > 2 else None
        return _View(storage=storage, offset=offset, shape=shape, strides=strides, marks=marks)

    return rebuild


def _rebuild_parameter() -> Callable[..., object]:
    def rebuild(tensor: object, *_gradient_and_hooks: object) -> object:
        return tensor

    return rebuild


def _state_dict(path: Path, loaded: object) -> dict[str, _View]:
    found = loaded
    if isinstance(loaded, dict):
        found = next((loaded[nest] for nest in _NESTS if isinstance(loaded.get(nest), dict)), loaded)
    if not isinstance(found, dict):
        raise _refusal(path, f"holds a {type(found).__name__} where a state dict is required")
    for name, value in found.items():
        if not isinstance(name, str) or not _encodable(name):
            raise _refusal(path, "its state dict has a name that is not text")
        if not isinstance(value, _View):
            raise _refusal(path, f"{name[:80]!r} is a {type(value).__name__} where a tensor is required")
    return found


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return True


def _info(path: Path, name: str, view: _View, storages: Mapping[str, _Entry]) -> TensorInfo:
    """Where a tensor lies, once all that the pickle says of it is found true."""
    match view.storage:
        case ("storage", str(kind), str(key), _, int(elements)):
            dtype, storage = _STORAGES.get(kind), storages.get(key)
        case _:
            raise _refusal(path, f"{name[:80]}: its storage is not described as torch.save does")
    if dtype is None:
        raise _refusal(path, f"{name[:80]}: {kind[:40]} is not known; known are {', '.join(_STORAGES)}")
    if storage is None or storage.bytes != elements * dtype.item_bytes:
        raise _refusal(path, f"{name[:80]}: storage {key[:40]!r} of {elements} elements is not in the file")
    shape, strides = _whole_numbers(view.shape), _whole_numbers(view.strides)
    begin = _whole_numbers((view.offset,))
    if shape is None or strides is None or begin is None or len(shape) != len(strides):
        raise _refusal(path, f"{name[:80]}: its shape, strides and offset are not whole numbers")
    if view.marks:
        raise _refusal(path, f"{name[:80]}: is to be negated or conjugated when it is read")
    if not _contiguous(shape, strides):
        raise _refusal(
            path, f"{name[:80]}: shape {_short(shape)} with strides {_short(strides)} is not contiguous"
        )
    if begin[0] + math.prod(shape) > elements:
        raise _refusal(path, f"{name[:80]}: shape {_short(shape)} goes beyond its storage")
    offset = storage.offset + begin[0] * dtype.item_bytes
    return TensorInfo(name=name, dtype=dtype, shape=shape, path=path, offset=offset)


def _whole_numbers(value: object) -> tuple[int, ...] | None:
    if isinstance(value, tuple) and all(type(item) is int and 0 <= item <= _MOST_ELEMENTS for item in value):
        return value
    return None


def _short(extents: tuple[int, ...]) -> str:
    return str(list(extents[:8]))


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie row by row; the stride of an extent of one says nothing."""
    if 0 in shape:
        return True
    expected = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != expected:
            return False
        expected *= extent
    return True
