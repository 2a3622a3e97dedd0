"""A router on disk: `router.json` and `tensors.safetensors` in one folder, neither able to run code."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from modelyard.core.digests import digest_bytes, digest_json
from modelyard.core.errors import RoutingError
from modelyard.core.files import read_json, write_json, write_whole

SCHEMA = "modelyard.router/1"
_RECORD, _TENSORS = "router.json", "tensors.safetensors"

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
        new.mkdir()
        data = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
        write_whole(new / _TENSORS, data)
        whole = {"schema": SCHEMA, "tensors": digest_bytes(data), **record}
        write_json(new / _RECORD, {**whole, "digest": digest_json(whole)})
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
    record, path = _record(folder / _RECORD), folder / _TENSORS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RoutingError(f"{path}: cannot be read ({error.strerror}); fit the router again") from error
    if digest_bytes(data) != record.get("tensors"):
        raise RoutingError(
            f"{path}: the digest is {digest_bytes(data)}, not {record.get('tensors')} as when it was "
            "written; restore the file or fit the router again"
        )
    try:
        return record, load(data)
    except SafetensorError as error:
        raise RoutingError(f"{path}: {error}; fit the router again") from error


def _record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
    except FileNotFoundError as error:
        raise RoutingError(
            f"{path.parent}: no router lies there; make one with `modelyard router fit`"
        ) from error
    except (ValueError, OSError) as error:
        raise RoutingError(f"{path}: cannot be read as JSON ({error}); fit the router again") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise RoutingError(
            f"{path}: the schema is {schema!r} where {SCHEMA!r} is read; use the modelyard that wrote it, or "
            "fit the router again"
        )
    told = record.pop("digest", None)
    if told != digest_json(record):
        raise RoutingError(f"{path}: was changed since it was written; restore it or fit the router again")
    return dict(record)
