"""The yard: the one directory that holds everything, by default `.modelyard/`."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.clock import stamp, utc_now
from modelyard.core.errors import StateError
from modelyard.core.files import read_json, write_json
from modelyard.core.journal import Journal

SCHEMA = "modelyard.state/1"
DEFAULT = ".modelyard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Yard:
    """An open yard. `id` is part of every job's key, so that two yards never share a job."""

    root: Path
    id: str
    journal: Journal

    @property
    def runs_dir(self) -> Path:
        """Where runs live that name no directory of their own."""
        return self.root / "runs"

    @property
    def artifacts_dir(self) -> Path:
        """The content store."""
        return self.root / "artifacts"

    @property
    def keys_dir(self) -> Path:
        """The yard's own key and, in `trusted/`, the public keys that count."""
        return self.root / "keys"

    @property
    def index_path(self) -> Path:
        """The index over the journal; it can be deleted at any time."""
        return self.root / "yard.db"


def open_yard(root: Path, *, create: bool) -> Yard:
    """Open the yard in a directory, making it when told to.

    Raises:
        StateError: There is no yard there, or one of another version.
    """
    root = root.absolute()
    path = root / "yard.json"
    if not path.exists():
        if not create:
            raise StateError(
                f"{root}: there is no yard here; run `modelyard up` first or name one with --yard"
            )
        _create(path)
    try:
        record = read_json(path)
        schema, yard_id = record["schema"], record["id"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path}: is not a yard's record; restore it from a backup") from error
    if schema != SCHEMA:
        raise StateError(
            f"{path}: has schema {schema} where this version reads {SCHEMA}; use the version that wrote it"
        )
    return Yard(root=root, id=yard_id, journal=Journal(root / "journal"))


def _create(path: Path) -> None:
    """Write the yard's record unless another process was first: both then have the same id."""
    own = path.with_name(f".yard.{uuid.uuid4().hex}.tmp")
    write_json(own, {"schema": SCHEMA, "id": uuid.uuid4().hex, "created_at": stamp(utc_now())})
    with contextlib.suppress(FileExistsError):
        os.link(own, path)
    own.unlink()
