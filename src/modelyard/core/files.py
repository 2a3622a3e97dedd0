"""Writing files whole: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import errno
import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_whole(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Replace `path` by `data` in one step; missing parent folders are made.

    `durable` also forces the bytes to the disk; without it a loss of power may bring the old
    content back (a killed process cannot).
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, where a file is to be written", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace `path` by indented JSON in one step; NaN and infinities are refused."""
    write_whole(
        path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", durable=durable
    )


def read_json(path: Path) -> Any:
    """The JSON value in a file of our own; `FileNotFoundError` and `ValueError` pass through."""
    return json.loads(path.read_bytes())
