"""Content digests: what a thing is, independent of where it lies. Canonical JSON is RFC 8785."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rfc8785

_CHUNK_BYTES = 1 << 20
_SMALL_BYTES = 1 << 26


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value: one value, one spelling."""
    return rfc8785.dumps(value)


def digest_bytes(data: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """The digest of a JSON value's canonical form."""
    return digest_bytes(canonical_json(value))


def digest_path(path: Path) -> str:
    """The digest of a file's bytes, or of a folder's relative names and file digests, sorted."""
    if path.is_dir():
        members = sorted(p for p in path.rglob("*") if p.is_file())
        return digest_json({p.relative_to(path).as_posix(): digest_path(p) for p in members})
    running = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            running.update(chunk)
    return "sha256:" + running.hexdigest()


class Fingerprints:
    """What inputs are, cheaply: the digest of a file of at most 64 MiB, size and time of a larger one.

    A file is read again only when its size or time has changed. A folder is known by its path
    alone; what is not there is `missing`.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, path: str) -> str:
        """The fingerprint of what lies at a path now."""
        place = Path(path)
        try:
            facts = place.stat()
        except OSError:
            return "missing"
        if not place.is_file():
            return "folder"
        if facts.st_size > _SMALL_BYTES:
            return f"{facts.st_size} bytes, changed at {facts.st_mtime_ns} ns"
        key = (path, facts.st_size, facts.st_mtime_ns)
        if key not in self._known:
            self._known[key] = digest_path(place)
        return self._known[key]
