"""Checks a journal with nothing but its files: `python -m modelyard.verify.journal FOLDER`.

Written apart from the code that writes journals; the two share only the format. Every line must be
the RFC 8785 form of its entry, numbered without gaps, bound to the line before by digest, and not
earlier than those before it; the head file must point into the log; and no job that lies in the yard
may be one that the log does not announce. Who changes all of these together is found by an anchor, a
signed head that was kept elsewhere (`--anchor FILE`, see `anchor.py`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785

from modelyard.verify.anchor import Anchor, Chain, anchor_faults, read_anchors

#: How far clocks of one yard may differ or be set back before it counts as a game with time.
TOLERANCE = timedelta(minutes=1)
_FIELDS = {"data", "digest", "kind", "prev", "run", "schema", "seq", "time"}
#: Files that are written last, long after the journal's first entry.
_LATE_FILES = ("evaluations/*/evaluation.json", "certificates/*/paired_eval_report.json")
_MOST_EXACT = 2**53 - 1
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the check found; the journal is sound when `faults` is empty."""

    entries: int
    head: str
    faults: tuple[str, ...]
    # Those of them that are about time alone: the clock was set back, an entry is still to come.
    clock: tuple[str, ...] = ()


class _Reader:
    """Decodes lines, and tells whether all encoders spell the last one's numbers alike."""

    def __init__(self) -> None:
        self.plain = True
        self._decoder = json.JSONDecoder(parse_float=self._real, parse_int=self._whole)

    def read(self, line: bytes) -> Any:
        """The value on a line; `ValueError` where it is not JSON."""
        self.plain = line.isascii()
        return self._decoder.decode(line.decode())

    def _real(self, text: str) -> float:
        value = float(text)
        if "e" in text or text.endswith(".0") or repr(value) != text:
            self.plain = False
        return value

    def _whole(self, text: str) -> int:
        value = int(text)
        if not -_MOST_EXACT <= value <= _MOST_EXACT:
            self.plain = False
        return value


@dataclass(slots=True, kw_only=True)
class _Log:
    """What was read of a log so far."""

    reader: _Reader = field(default_factory=_Reader)
    digests: list[str] = field(default_factory=list)
    times: list[datetime | None] = field(default_factory=list)
    announced: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    clock: list[str] = field(default_factory=list)
    previous: str = "sha256:" + "0" * 64
    latest: datetime | None = None


def verify_journal(folder: Path, *, anchors: Sequence[Anchor] = (), now: datetime | None = None) -> Verdict:
    """Check the log and the head in a journal's folder, and what lies beside it; reads only.

    Args:
        folder: The journal's folder; the folder that it lies in is the yard.
        anchors: Signed heads from outside, as `read_anchor` gives them.
        now: The present; entries that are later than it are faults. Without it they are not.
    """
    # what follows an entry is read before the log, so that a writer at work is no fault
    head, jobs = _head(folder / "head.json"), _jobs(folder.parent)
    log = _read(folder / "journal.jsonl")
    if now is not None and log.latest is not None and log.latest > now + TOLERANCE:
        log.clock.append(f"an entry says that it is of {log.latest}, which is still to come")
    faults = [*log.faults, *_check_head(head, log.digests), *_check_yard(folder.parent, jobs, log)]
    if anchors:
        chain = Chain(yard=_yard_id(folder.parent), digests=log.digests, times=log.times)
        faults += [fault for anchor in anchors for fault in anchor_faults(anchor, chain, TOLERANCE)]
    return Verdict(
        entries=len(log.digests), head=log.previous, faults=(*faults, *log.clock), clock=tuple(log.clock)
    )


def _read(path: Path) -> _Log:
    log = _Log()
    if not path.exists():
        return log
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                log.faults.append(f"line {number}: has no end (a writer died here; the next append mends it)")
                break
            _take(log, line, number)
    return log


def _take(log: _Log, line: bytes, number: int) -> None:
    """Check one line against those before it, and remember what it says."""
    entry, problem = _entry(log.reader, line)
    claimed = str(entry.get("digest", "")) if entry else ""
    if not problem:
        problem = _misplaced(entry, number, log.previous)
    time = _time(entry)
    if not problem and time is None:
        problem = f"has the time {entry['time']!r}, which is none in UTC"
    if problem:
        log.faults.append(f"line {number}: {problem}")
    elif set_back := _set_back(log, time):
        log.clock.append(f"line {number}: {set_back}")
    if entry.get("kind") == "job.intent" and isinstance(entry["data"], dict):
        log.announced.add(str(entry["data"].get("key")))
    log.previous = claimed or log.previous
    log.digests.append(log.previous)
    log.times.append(time)


def _entry(reader: _Reader, line: bytes) -> tuple[dict[str, Any], str]:
    """The entry on a line (empty: unreadable), and the problem with the line alone (empty: none)."""
    try:
        entry = reader.read(line)
    except (ValueError, RecursionError):
        return {}, "is not JSON"
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        return {}, "does not have the fields of an entry"
    claimed = str(entry["digest"])
    rest = {key: value for key, value in entry.items() if key not in ("data", "digest")}
    try:
        data, others = _canonical(entry["data"], plain=reader.plain), _canonical(rest, plain=reader.plain)
        shown = _canonical(claimed, plain=reader.plain)
    except (ValueError, RecursionError):  # a number that JSON does not know
        return entry, "is not in canonical form"
    # sorted by name, `data` is the first field and `digest` the second
    if b'{"data":%b,"digest":%b,%b\n' % (data, shown, others[1:]) != line:
        return entry, "is not in canonical form"
    if "sha256:" + hashlib.sha256(b'{"data":%b,%b' % (data, others[1:])).hexdigest() != claimed:
        return entry, "was changed: its digest does not cover what it says"
    return entry, ""


def _canonical(value: Any, *, plain: bool) -> bytes:
    """The RFC 8785 bytes of a value.

    Of a `plain` one the standard encoder writes the same, ten times as fast. Its text is ASCII: names
    sort alike by code point and by UTF-16 unit, and both escape quotes, backslashes and control
    characters only, in the same spelling. Its whole numbers are at most 2^53 - 1, its others have the
    shortest digits and neither an exponent nor `.0`, where Python and ECMAScript write the same.
    """
    if not plain:
        return rfc8785.dumps(value)
    return _ENCODER.encode(value).encode()


def _misplaced(entry: dict[str, Any], number: int, previous: str) -> str:
    if entry["seq"] != number:
        return f"has number {entry['seq']}: entries were removed, added or reordered"
    if entry["prev"] != previous:
        return "does not follow the line before it"
    return ""


def _time(entry: dict[str, Any]) -> datetime | None:
    try:
        time = datetime.fromisoformat(entry["time"])
    except (KeyError, ValueError, TypeError):
        return None
    return time if time.utcoffset() == timedelta(0) else None


def _set_back(log: _Log, time: datetime | None) -> str:
    """The problem where an entry is earlier than one before it; what follows is measured by it then."""
    latest = log.latest
    if time is None:
        return ""
    if latest is not None and time < latest - TOLERANCE:
        log.latest = time
        return f"is of {time}, after an entry of {latest}: the clock was set back, or the time is made up"
    log.latest = time if latest is None else max(latest, time)
    return ""


def _head(path: Path) -> tuple[int, str] | str | None:
    """Count and digest of a head file, or what is wrong with it; None where there is none."""
    try:
        head = json.loads(path.read_bytes())
        return int(head["count"]), str(head["digest"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "head.json is not a journal head"


def _check_head(head: tuple[int, str] | str | None, digests: list[str]) -> list[str]:
    if head is None:
        return ["head.json is missing: a truncated log could not be noticed"] if digests else []
    if isinstance(head, str):
        return [head]
    count, digest = head
    if count > len(digests):
        return [f"the log was cut short: {len(digests)} entries where the head counts {count}"]
    if count < 1 or digests[count - 1] != digest:
        return [f"entry {count} is not the one that the head names: the log was rewritten"]
    return []


def _jobs(yard: Path) -> set[str]:
    """The keys of the jobs that lie in a yard's own runs."""
    return {path.name for path in yard.glob("runs/*/jobs/*") if not path.name.startswith(".")}


def _check_yard(yard: Path, jobs: set[str], log: _Log) -> list[str]:
    """What lies in the yard and must have been in the log before: jobs, results of evaluations."""
    unknown = sorted(jobs - log.announced)
    faults = []
    if unknown:
        faults.append(
            f"{len(unknown)} jobs lie in the yard that no entry announces, one is {unknown[0]}: "
            "the log was cut short, deleted or replaced"
        )
    if not log.digests:
        late = next((path for pattern in _LATE_FILES for path in yard.glob(pattern)), None)
        faults += [f"{late} is there, but no entry at all: the log was deleted"] if late else []
    return faults


def _yard_id(yard: Path) -> str:
    try:
        return str(json.loads((yard / "yard.json").read_bytes())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdict; status 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.verify.journal", description=__doc__)
    parser.add_argument("folder", type=Path, help="the journal's folder")
    parser.add_argument("--anchor", type=Path, action="append", default=[], help="a signed head")
    parser.add_argument("--trusted", type=Path, help="a folder of the public keys that may sign anchors")
    chosen = parser.parse_args(arguments)
    anchors, problems = read_anchors(chosen.anchor, chosen.trusted)
    verdict = verify_journal(chosen.folder, anchors=anchors, now=datetime.now(UTC))
    for fault in (*problems, *verdict.faults):
        sys.stderr.write(fault + "\n")
    sys.stdout.write(f"{verdict.entries} entries, head {verdict.head}\n")
    return 1 if problems or verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
