"""A router on disk: `router.json` and `tensors.safetensors` in one folder, neither able to run code."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.artifacts.safetensors import DType, layout, read_header
from modelyard.core.digests import digest_path
from modelyard.core.errors import CheckpointError, RoutingError
from modelyard.core.files import read_json, write_json, write_whole

SCHEMA = "modelyard.router/1"
_RECORD, _TENSORS = "router.json", "tensors.safetensors"
_DTYPES = {"float32": DType.F32, "float64": DType.F64, "int64": DType.I64}
_READ = {DType.F32: "<f4", DType.F64: "<f8", DType.I64: "<i8"}

Tensors = Mapping[str, npt.NDArray[Any]]


def write_router(folder: Path, record: Mapping[str, Any], tensors: Tensors) -> None:
    """Write a folder beside this place and rename it; a router that lies there is replaced.

    Raises:
        RoutingError: Something else lies there.
    """
    if folder.exists() and not (folder / _RECORD).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise RoutingError(f"{folder}: something that is no router lies there; give another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.{end}") for end in ("new", "old"))
    try:
        _write(new, record, tensors)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def read_router(folder: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The record and the tensors of a folder.

    Raises:
        RoutingError: A file is missing, cut short, of another version, or not what was written.
    """
    path = folder / _RECORD
    try:
        record = read_json(path)
    except FileNotFoundError as error:
        raise RoutingError(f"{folder}: no router lies there; make one with `modelyard router fit`") from error
    except (ValueError, OSError) as error:
        raise RoutingError(f"{path}: cannot be read as JSON ({error}); fit the router again") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise RoutingError(
            f"{path}: the schema is {schema!r} where {SCHEMA!r} is read; use the modelyard that wrote it, or "
            "fit the router again"
        )
    tensors = folder / _TENSORS
    try:
        digest = digest_path(tensors)
    except OSError as error:
        raise RoutingError(f"{tensors}: cannot be read ({error.strerror}); fit the router again") from error
    if digest != record.get("tensors"):
        raise RoutingError(
            f"{tensors}: the digest is {digest}, not {record.get('tensors')} as when it was written; "
            "restore the file or fit the router again"
        )
    return record, _read_tensors(tensors)


def _write(folder: Path, record: Mapping[str, Any], tensors: Tensors) -> None:
    folder.mkdir()
    path = folder / _TENSORS
    start, _, _ = layout(
        ((name, _DTYPES[str(array.dtype)], array.shape) for name, array in tensors.items()),
        path=path,
        metadata={"schema": SCHEMA},
    )
    parts = [
        np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in tensors.values()
    ]
    write_whole(path, start + b"".join(parts))
    write_json(folder / _RECORD, {"schema": SCHEMA, "tensors": digest_path(path), **record})


def _read_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        infos, _ = read_header(path)
    except CheckpointError as error:
        raise RoutingError(f"{error}") from error
    data = path.read_bytes()
    found: dict[str, npt.NDArray[Any]] = {}
    for info in infos:
        if info.dtype not in _READ:
            raise RoutingError(
                f"{path}: {info.name}: {info.dtype.word} is in no router; fit the router again"
            )
        array = np.frombuffer(data, _READ[info.dtype], info.size, info.offset).reshape(info.shape)
        found[info.name] = array.astype(array.dtype.newbyteorder("="))
    return found
