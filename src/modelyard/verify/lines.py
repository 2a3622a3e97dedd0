"""Files of canonical JSON lines that a report names with their digest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rfc8785

from modelyard.verify.signature import read_record

NUMBER = (int, float)
#: How far two computations of one number may lie apart.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


def file_digest(content: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def read_lines(
    folder: Path, name: object, digest: object, faults: list[str], *, may_be_empty: bool = False
) -> list[dict[str, Any]] | None:
    """The canonical JSON lines of a file that the report names with its digest; None with a fault."""
    if not isinstance(name, str) or not name or Path(name).name != name or name in (".", ".."):
        faults.append(f"raw_outputs: the report names {name!r} where a file beside it is required")
        return None
    try:
        content = (folder / name).read_bytes()
    except (OSError, ValueError) as error:  # a name may hold what no file's name can
        faults.append(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})")
        return None
    if file_digest(content) != digest:
        faults.append(f"{name}: the report states the digest {digest}, the file has {file_digest(content)}")
    records = []
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            record = read_record(line)
            canonical = rfc8785.dumps(record) + b"\n" == line
        except (ValueError, RecursionError) as error:
            faults.append(f"{name}: line {number} {error}")
            return None
        if not canonical:
            faults.append(f"{name}: line {number} is not in canonical form")
            return None
        records.append(record)
    if not records and not may_be_empty:
        faults.append(f"{name}: holds nothing")
        return None
    return records


def misshapen(
    name: str,
    lines: Sequence[Mapping[str, Any]],
    form: Mapping[str, Any],
    faults: list[str],
    *,
    exact: bool = False,
) -> bool:
    """Whether a line lacks a field, has one of another type or, where `exact`, one too many."""
    for number, line in enumerate(lines, start=1):
        wrong = [field for field, kind in form.items() if not is_of(line.get(field, ...), kind)]
        if exact:
            wrong += sorted(set(line) - set(form))
        if wrong:
            faults.append(f"{name}: line {number} has no such field, or a wrong one: {', '.join(wrong)}")
            return True
    return False


def is_of(value: object, kind: Any) -> bool:
    """Whether a JSON value is of a type; true and false are no numbers."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def close(stated: float, found: float) -> bool:
    """Whether two computations give the same number."""
    return math.isclose(stated, found, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
