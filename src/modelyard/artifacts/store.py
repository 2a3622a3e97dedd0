"""The content store: `sha256/<two digits>/<the rest>/content` and `artifact.json` beside it.

An artifact is written to a temporary folder and renamed, so that what is there is whole. Storing
the same content twice is one artifact.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from modelyard.core.digests import digest_path
from modelyard.core.errors import ArtifactError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json

SCHEMA = "modelyard.artifact/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What a step left: known by its content, with the artifacts it was made from."""

    digest: str
    kind: str
    parents: tuple[str, ...]
    size_bytes: int


class ArtifactStore:
    """One yard's artifacts."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: Path, *, kind: str, parents: Sequence[str] = ()) -> Artifact:
        """Copy a file or folder into the store.

        Raises:
            ArtifactError: The content changed while it was copied, or cannot be read or written.
        """
        temporary = self._root / f".{uuid.uuid4().hex}.tmp"
        try:
            digest = digest_path(path)
            artifact = Artifact(
                digest=digest, kind=kind, parents=tuple(parents), size_bytes=_size_bytes(path)
            )
            if not self._is_sound(digest):
                self._copy(path, artifact, temporary)
                self._settle(temporary, digest)
        except OSError as error:
            raise ArtifactError(
                f"{path}: cannot be stored in {self._root} ({error}); free the disk or mend the path"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return artifact

    def path(self, digest: str, *, verify: bool = False) -> Path:
        """Where the content lies; with `verify` its digest is computed again.

        Raises:
            ArtifactError: It is not there, or is not what its digest says.
        """
        content = self._place(digest) / "content"
        if not content.exists():
            raise ArtifactError(f"{digest}: is not in {self._root}; run the step that makes it again")
        if verify and digest_path(content) != digest:
            raise ArtifactError(
                f"{content}: is not {digest}: it was changed on disk; run the step that makes it again"
            )
        return content

    def describe(self, digest: str) -> Artifact:
        """The artifact's record. Raises `ArtifactError`."""
        self.path(digest)
        record = read_json(self._place(digest) / "artifact.json")
        record.pop("schema")
        return Artifact(**{**record, "parents": tuple(record["parents"])})

    def _is_sound(self, digest: str) -> bool:
        """Whether the store has it, and it is still what its digest says."""
        place = self._place(digest)
        return (place / "artifact.json").exists() and digest_path(place / "content") == digest

    def _copy(self, path: Path, artifact: Artifact, temporary: Path) -> None:
        temporary.mkdir(parents=True)
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, temporary / "content")
        if digest_path(temporary / "content") != artifact.digest:
            raise ArtifactError(f"{path}: changed while it was stored; let its writer end first")
        write_json(temporary / "artifact.json", {"schema": SCHEMA, **asdict(artifact)})

    def _settle(self, temporary: Path, digest: str) -> None:
        """Rename into place; a damaged artifact gives way, and who came first with a sound one stays."""
        place = self._place(digest)
        failpoint("artifacts.before_rename")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not self._is_sound(digest):
            damaged = temporary.with_suffix(".damaged.tmp")
            place.replace(damaged)
            shutil.rmtree(damaged)
        try:
            temporary.replace(place)
        except OSError:
            if not (place / "artifact.json").exists():
                raise

    def _place(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._root / "sha256" / name[:2] / name[2:]


def _size_bytes(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size
