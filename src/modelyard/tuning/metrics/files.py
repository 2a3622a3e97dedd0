"""Files in which a training job reports metrics, followed while it writes, and all places together.

A file is read on from where it was left. When it was cut short, written anew or moved away, this is noticed:
the rest of a moved file is read, then the new one from its start, and a note says so.

    metrics.jsonl       one JSON object a line, of `telling.tell` or of the job's own
    status.json         TAO's: one JSON object a line, with the values under `kpi`
    events.out.tfevents.*   TensorBoard's, by `event_files`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import fstat
from pathlib import Path
from typing import BinaryIO, Protocol

from modelyard.tuning.metrics.curves import Curve, LineReader, WholeLines
from modelyard.tuning.metrics.event_files import EventFolder
from modelyard.tuning.metrics.rules import MetricRules, Reading, Spellings

_CHUNK_BYTES = 1 << 18
_FINGERPRINT_BYTES = 256
#: How far places are from one another: the first that has a metric gives its curve.
_FARTHER = 1000


class FollowedFile:
    """A file that grows; not held open between two looks, so that a network file system shows its end."""

    def __init__(self, path: Path, *, chunk_bytes: int = _CHUNK_BYTES) -> None:
        self.path = path
        self.notes: list[str] = []
        self._chunk_bytes = chunk_bytes
        self._offset = 0
        self._identity: tuple[int, int] | None = None
        self._last = b""  # what stood just before the offset

    def chunks(self) -> Iterator[bytes | None]:
        """What is new; None where what follows does not join on to what came before."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(f"{self.path}: cannot be read ({error.strerror}); its metrics are missing")
            return
        with file:
            identity = _identity(file)
            if not self._goes_on(file):
                yield from self._elsewhere(identity)
                yield None
                self._offset, self._last = 0, b""
            self._identity = identity
            yield from self._rest(file)

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether the file still has what was read of it, be it the same file or a copy with more."""
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) == self._last

    def _elsewhere(self, identity: tuple[int, int]) -> Iterator[bytes]:
        """The rest of the file that stood here before, if it was moved to a name beside."""
        for path in self.path.parent.glob(f"{self.path.name}*") if identity != self._identity else ():
            try:
                with path.open("rb") as file:
                    if _identity(file) == self._identity and self._goes_on(file):
                        self._note(f"{self.path}: was moved to {path.name}; both were read")
                        yield from self._rest(file)
                        return
            except OSError:
                continue
        self._note(
            f"{self.path}: was written anew after {self._offset} bytes; what it said before is kept, and it "
            "was read again from its start"
        )

    def _rest(self, file: BinaryIO) -> Iterator[bytes]:
        file.seek(self._offset)
        while chunk := file.read(self._chunk_bytes):
            self._offset += len(chunk)
            self._last = (self._last + chunk)[-_FINGERPRINT_BYTES:]
            yield chunk

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class Reader(Protocol):
    """Makes readings of a stream of bytes, whatever its chunks."""

    def feed(self, chunk: bytes) -> list[Reading]:
        """The readings that this chunk completes."""

    def finish(self, *, ended_well: bool) -> list[Reading]:
        """What is left, an unfinished last line only if the program ended well; the next begins anew."""


class RecordReader:
    """Reads one JSON object a line; other lines are passed over."""

    def __init__(self, rules: MetricRules) -> None:
        self._lines = WholeLines()
        self._spellings = Spellings(rules)

    def feed(self, chunk: bytes) -> list[Reading]:
        """The readings of the lines that end in this chunk."""
        return [reading for line, _ in self._lines.feed(chunk) for reading in self._read(line)]

    def finish(self, *, ended_well: bool) -> list[Reading]:
        """The reading of a last line without its end, if the program ended well."""
        rest = self._lines.finish()
        return self._read(rest) if ended_well else []

    def _read(self, line: bytes) -> list[Reading]:
        record = _record(line)
        return [] if record is None else self._spellings.in_record(record)[0]


class StatusReader:
    """Reads TAO's status.json.

    A line of it tells an epoch, values (`kpi`), both or neither. TAO repeats the last values on every line
    after them: the first such line that tells an epoch gives it to values that were told without one, other
    repetitions count for nothing. Values of training stand after the line of their epoch and belong to it.
    Values that no line gives an epoch count from 1.
    """

    def __init__(self, rules: MetricRules) -> None:
        self._lines = WholeLines()
        self._spellings = Spellings(rules)
        self._epoch: int | None = None
        # The last values, and the message of the line that told them first.
        self._told: tuple[object, object] = (None, None)
        # What waits for its epoch.
        self._waiting: list[Reading] = []

    def feed(self, chunk: bytes) -> list[Reading]:
        """The readings that the lines ending in this chunk settle."""
        return [reading for line, _ in self._lines.feed(chunk) for reading in self._read(line)]

    def finish(self, *, ended_well: bool) -> list[Reading]:
        """What still waits for an epoch, and a last line without its end if the program ended well."""
        rest = self._lines.finish()
        readings = self._read(rest) if ended_well else []
        return readings + self._release()

    def _read(self, line: bytes) -> list[Reading]:
        record = _record(line)
        if record is None:
            return []
        values, message = record.get("kpi"), record.get("message")
        epoch = self._spellings.step({k: v for k, v in record.items() if not isinstance(v, Mapping)})
        self._epoch = self._epoch if epoch is None else epoch
        if not isinstance(values, Mapping) or not values:
            return []
        repeated = values == self._told[0] and message != self._told[1]
        if repeated:
            return self._release(epoch) if epoch is not None else []
        self._told = (values, message)
        released = self._release()
        found = self._spellings.in_record(values)[0]
        if epoch is None and str(message).lower().startswith("train"):
            epoch = self._epoch
        if epoch is not None:
            return released + [replace(reading, step=epoch) for reading in found]
        self._waiting = found
        return released

    def _release(self, epoch: int | None = None) -> list[Reading]:
        released = [replace(reading, step=epoch) for reading in self._waiting]
        self._waiting = []
        return released


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a job may leave metrics, besides printing them; what is not there is no fault."""

    # JSON lines: the file that MODELYARD_METRICS names for the job.
    told: Path | None = None
    # TAO's status.json, or a folder below which it appears.
    status: Path | None = None
    # A folder below which TensorBoard's event files appear.
    events: Path | None = None


class MetricSources:
    """All that one job reports, and the curve of each metric. To be used in one thread.

    Each metric is taken from the first of these that has it: the told file, status.json, event files, what
    was printed. Whoever begins again with a new instance and the same bytes gets the same curves.
    """

    def __init__(self, rules: MetricRules, places: Places = Places(), *, start: int = 0) -> None:
        """Begin at the start of every place; values without a step come after the step `start`."""
        self.curves = {name: Curve(start=start) for name in rules.names}
        self._rules, self._places = rules, places
        self._printed = LineReader(rules)
        self._followed: dict[Path, tuple[FollowedFile, Reader, int]] = {}
        self._events = None if places.events is None else EventFolder(places.events, rules)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed that a person may have to know."""
        events = () if self._events is None else self._events.notes
        return (*(note for file, _, _ in self._followed.values() for note in file.notes), *events)

    @property
    def passed_over(self) -> tuple[str, ...]:
        """Printed lines that were in doubt; see `LineReader.passed_over`."""
        return self._printed.passed_over

    def feed(self, printed: bytes) -> list[Reading]:
        """Take in more of what the job printed; the readings with their steps, as the curves have them."""
        return self._add(self._printed.feed(printed), 3)

    def poll(self) -> list[Reading]:
        """Look at the files; likewise.

        Raises:
            TuneError: There are event files, and the library that reads them is not installed.
        """
        readings: list[Reading] = []
        for path, make, place in self._files():
            if path not in self._followed:
                self._followed[path] = (FollowedFile(path), make(self._rules), place)
        for file, reader, place in self._followed.values():
            for chunk in file.chunks():
                new = reader.finish(ended_well=False) if chunk is None else reader.feed(chunk)
                readings += self._add(new, place)
        if self._events is not None:
            readings += self._add(self._events.poll(), 2)
        return readings

    def finish(self, *, ended_well: bool) -> list[Reading]:
        """Take in the rest once the job has ended, the files included; likewise."""
        readings = self.poll()
        for _, reader, place in self._followed.values():
            readings += self._add(reader.finish(ended_well=ended_well), place)
        return readings + self._add(self._printed.finish(ended_well=ended_well), 3)

    def _files(self) -> Iterator[tuple[Path, type[RecordReader] | type[StatusReader], int]]:
        if self._places.told is not None:
            yield self._places.told, RecordReader, 0
        for path in _below(self._places.status, "status.json"):
            yield path, StatusReader, 1

    def _add(self, readings: Iterable[Reading], place: int) -> list[Reading]:
        added = []
        for reading in readings:
            placed = replace(reading, rank=reading.rank + place * _FARTHER)
            step = self.curves[reading.name].add(placed)
            if step is not None:
                added.append(replace(placed, step=step))
        return added


def _below(place: Path | None, name: str) -> Sequence[Path]:
    if place is None:
        return ()
    return sorted(place.rglob(name)) if place.is_dir() else (place,)


def _record(line: bytes) -> Mapping[str, object] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = fstat(file.fileno())
    return status.st_dev, status.st_ino
