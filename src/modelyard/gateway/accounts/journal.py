"""The journal of a worker: one line of JSON for each request that has ended, written at once.

A line is in the kernel's hands when `append` returns, so a killed process loses none. One file at a time is
written, under a lock that ends with the process: a reader that gets the lock knows that no line will come.
A file gets its name only once it is locked, and the next one is there before the one before is let go, so
that a living worker always holds one. This module does not know what is done with the lines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import GatewayError
from modelyard.core.failpoints import failpoint
from modelyard.core.locks import is_held
from modelyard.gateway.accounts.records import RequestRecord, line_of

FOLDER = "requests"
_ROLL_BYTES = 64 << 20
_NAME = re.compile(r"(?P<worker>[A-Za-z0-9_.-]+)\.(?P<number>\d{6})\.jsonl")
_WORKER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNNAMED = ".new"
_UNNAMED_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFile:
    """A file of a worker's journal."""

    path: Path
    worker: str
    number: int


class RequestJournal:
    """What one incarnation of a worker writes; its name is used once. For one thread."""

    def __init__(self, folder: Path, worker: str, *, roll_bytes: int = _ROLL_BYTES) -> None:
        """Open the first file of a worker in the gateway's folder; before that it must not lease anything.

        Raises:
            GatewayError: The name is no name or was used before, or the folder cannot be written.
        """
        if not _WORKER.fullmatch(worker):
            raise GatewayError(f"worker = {worker}: is not a name; use letters, digits, - and _")
        self.folder = folder / FOLDER
        self.worker = worker
        self._roll_bytes = roll_bytes
        self._number = 0
        self._size = 0
        self._mend = b""
        self.folder.mkdir(parents=True, exist_ok=True)
        if next(self.folder.glob(f"{worker}.*"), None) is not None:
            raise GatewayError(f"{self.folder}: worker = {worker} has a journal already; give a new name")
        self._file = self._open_next()

    def append(self, record: RequestRecord) -> None:
        """Write one line.

        Raises:
            GatewayError: It could not be written whole. A later one can, and readers drop the part.
        """
        line = self._mend + line_of(record)
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise self._lost(record, error.strerror) from error
        if written != len(line):
            self._mend = b"\n"
            raise self._lost(record, f"{written} of {len(line)} bytes were taken")
        self._mend = b""
        self._size += written
        if self._size >= self._roll_bytes:
            self._roll()

    def sync(self) -> None:
        """Force what was written to the disk, so that a loss of power spares it; in a thread, it may wait."""
        try:
            os.fsync(self._file)
        except OSError as error:
            if error.errno != errno.EBADF:  # it rolled over just now
                raise

    def close(self) -> None:
        """End the journal; a reader then takes it for that of a worker that has ended."""
        os.close(self._file)

    def _lost(self, record: RequestRecord, why: str | None) -> GatewayError:
        return GatewayError(
            f"{self.folder}: request {record.request_id} of key {record.key} could not be recorded ({why}); "
            "free the disk or mend the permissions"
        )

    def _roll(self) -> None:
        full = self._file
        self._file = self._open_next()
        self._size = 0
        failpoint("gateway.before_let_go")
        os.close(full)

    def _open_next(self) -> int:
        self._number += 1
        path = self.folder / f"{self.worker}.{self._number:06d}.jsonl"
        unnamed = path.with_name(f"{path.name}{_UNNAMED}")
        file = -1
        try:
            file = os.open(unnamed, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(path)
        except OSError as error:
            if file >= 0:
                os.close(file)
            raise GatewayError(f"{path}: cannot be made ({error.strerror}); mend the folder") from error
        return file


def journal_files(folder: Path) -> Iterator[JournalFile]:
    """The files of all workers in a gateway's folder, those of one worker in the order of writing."""
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            yield JournalFile(path=path, worker=match["worker"], number=int(match["number"]))


def is_written(file: JournalFile) -> bool:
    """Whether a living worker may still append to a file; one that is gone is not written."""
    return is_held(file.path)


def remove_unnamed(folder: Path, now_s: float) -> None:
    """Remove files that never got their name because their worker died just then."""
    for path in (folder / FOLDER).glob(f"*{_UNNAMED}"):
        with contextlib.suppress(FileNotFoundError):
            if now_s - path.stat().st_mtime > _UNNAMED_S:
                path.unlink()
