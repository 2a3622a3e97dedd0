"""The journal: an append-only, hash-chained log, and the truth of a yard.

One line an entry, RFC 8785 JSON. An entry's digest covers all its other fields, and `prev` is the
digest of the entry before, so an edit, a removal or a reordering breaks the chain. The head (count
and digest) is also kept in a file outside the log, so that a truncated log is noticed.

Several processes may append: each append holds a lock, writes its batch in one piece and forces it
to the disk once. A writer that dies in the middle leaves a last line without its end; the next
append drops it and says so in an entry. The journal does not know what its entries mean.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.digests import canonical_json, digest_bytes
from modelyard.core.errors import JournalError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import write_json

SCHEMA = "modelyard.journal/1"
GENESIS = "sha256:" + "0" * 64
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a caller wants to be recorded."""

    kind: str
    run: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One recorded fact; `end` is the byte offset in the log just after it."""

    seq: int
    time: str
    kind: str
    run: str
    data: Mapping[str, Any]
    digest: str
    end: int


class Journal:
    """The log of one yard. An instance may be used by one thread at a time; processes are many."""

    def __init__(self, folder: Path, *, clock: Clock = utc_now) -> None:
        self.folder = folder
        self.log = folder / "journal.jsonl"
        self.head = folder / "head.json"
        self._clock = clock
        self._seq = 0
        self._digest = GENESIS
        self._size = -1  # unknown: read the tail before the first append

    def append(self, drafts: Sequence[Draft], *, durable: bool = True) -> None:
        """Record the drafts in order, all or none, forced to the disk once.

        Args:
            drafts: What to record; an empty sequence does nothing.
            durable: Without it a loss of power may take these entries (a killed process cannot);
                for facts that can be found again, such as a native job id.

        Raises:
            JournalError: The log cannot be written, or is shorter than its head says.
        """
        if not drafts:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked() as file:
                repaired = self._catch_up(file)
                self._write(file, [*repaired, *drafts], durable=durable)
        except OSError as error:
            raise JournalError(
                f"{self.log}: cannot append {len(drafts)} entries ({error.strerror}); "
                "nothing was recorded; free the disk or mend the permissions and run the command again"
            ) from error

    def read(self, *, start: int = 0) -> Iterator[Entry]:
        """The entries from a byte offset on; an unfinished last line is left out.

        Raises:
            JournalError: A line is not an entry.
        """
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(start)
            end = start
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield _parse(line, end, self.log)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        descriptor = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _catch_up(self, file: int) -> list[Draft]:
        """Learn the last entry where others have written; drop a torn line and say so."""
        size = os.fstat(file).st_size
        if size == self._size:
            return []
        whole, last = _last_line(file, size)
        if last is not None:
            entry = _parse(last, whole, self.log)
            self._seq, self._digest = entry.seq, entry.digest
        else:
            self._seq, self._digest = 0, GENESIS
        self._refuse_short_log()
        self._size = whole
        if whole == size:
            return []
        os.ftruncate(file, whole)
        return [Draft(kind="journal.torn_line", run="", data={"dropped_bytes": size - whole})]

    def _refuse_short_log(self) -> None:
        try:
            known = int(json.loads(self.head.read_bytes())["count"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{self.head}: is not a journal head; run `modelyard audit verify`") from error
        if self._seq < known:
            raise JournalError(
                f"{self.log}: holds {self._seq} entries where {known} were recorded: the log was cut short; "
                "restore it from a backup, or move the yard away and start a new one"
            )

    def _write(self, file: int, drafts: Sequence[Draft], *, durable: bool) -> None:
        seq, digest, lines = self._seq, self._digest, []
        for draft in drafts:
            seq += 1
            body = {
                "data": dict(draft.data),
                "kind": draft.kind,
                "prev": digest,
                "run": draft.run,
                "schema": SCHEMA,
                "seq": seq,
                "time": stamp(self._clock()),
            }
            digest = digest_bytes(canonical_json(body))
            lines.append(canonical_json({**body, "digest": digest}) + b"\n")
        batch = b"".join(lines)
        failpoint("journal.before_write")
        try:
            _write_all(file, batch)
            failpoint("journal.before_sync")
            if durable:
                os.fsync(file)
            failpoint("journal.after_sync")
            write_json(self.head, {"count": seq, "digest": digest}, durable=False)
        except OSError:
            os.ftruncate(file, self._size)
            self._size = -1
            raise
        self._seq, self._digest, self._size = seq, digest, self._size + len(batch)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _last_line(file: int, size: int) -> tuple[int, bytes | None]:
    """The offset after the last whole line, and that line."""
    span = _TAIL_BYTES
    while True:
        start = max(0, size - span)
        tail = os.pread(file, size - start, start)
        end = tail.rfind(b"\n")
        if end >= 0:
            begin = tail.rfind(b"\n", 0, end)
            if begin >= 0 or start == 0:
                return start + end + 1, tail[begin + 1 : end + 1]
        elif start == 0:
            return 0, None
        span *= 4


def _parse(line: bytes, end: int, log: Path) -> Entry:
    try:
        record = json.loads(line)
        return Entry(
            seq=record["seq"],
            time=record["time"],
            kind=record["kind"],
            run=record["run"],
            data=record["data"],
            digest=record["digest"],
            end=end,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise JournalError(
            f"{log}: the line that ends at byte {end} is not a journal entry; run `modelyard audit verify`"
        ) from error
