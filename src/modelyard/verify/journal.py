"""Checks a journal with nothing but its files: `python -m modelyard.verify.journal FOLDER`.

Written apart from the code that writes journals; the two share only the format. Every line must be
the RFC 8785 form of its entry, numbered without gaps, bound to the line before by digest; and the
head file must point into the log.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import rfc8785

_FIELDS = {"data", "digest", "kind", "prev", "run", "schema", "seq", "time"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the check found; the journal is sound when `faults` is empty."""

    entries: int
    head: str
    faults: tuple[str, ...]


def verify_journal(folder: Path) -> Verdict:
    """Check the log and the head in a journal's folder; reads only."""
    log = folder / "journal.jsonl"
    faults: list[str] = []
    digests: list[str] = []
    previous = "sha256:" + "0" * 64
    if log.exists():
        with log.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    faults.append(f"line {number}: has no end (a writer died here; the next append mends it)")
                    break
                problem, own = _check(line, number, previous)
                if problem:
                    faults.append(f"line {number}: {problem}")
                previous = own or previous
                digests.append(previous)
    faults.extend(_check_head(folder / "head.json", digests))
    return Verdict(entries=len(digests), head=previous, faults=tuple(faults))


def _check(line: bytes, number: int, previous: str) -> tuple[str, str]:
    """The problem with one line (empty: none), and the digest that it claims."""
    try:
        entry = json.loads(line)
    except ValueError:
        return "is not JSON", ""
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        return "does not have the fields of an entry", ""
    claimed = str(entry["digest"])
    try:
        canonical = rfc8785.dumps(entry) + b"\n" == line
    except ValueError:  # a number that JSON does not know
        canonical = False
    if not canonical:
        return "is not in canonical form", claimed
    body = {key: value for key, value in entry.items() if key != "digest"}
    if "sha256:" + hashlib.sha256(rfc8785.dumps(body)).hexdigest() != claimed:
        return "was changed: its digest does not cover what it says", claimed
    if entry["seq"] != number:
        return f"has number {entry['seq']}: entries were removed, added or reordered", claimed
    if entry["prev"] != previous:
        return "does not follow the line before it", claimed
    return "", claimed


def _check_head(path: Path, digests: list[str]) -> list[str]:
    try:
        head = json.loads(path.read_bytes())
        count, digest = int(head["count"]), str(head["digest"])
    except FileNotFoundError:
        return ["head.json is missing: a truncated log could not be noticed"] if digests else []
    except (ValueError, KeyError, TypeError):
        return ["head.json is not a journal head"]
    if count > len(digests):
        return [f"the log was cut short: {len(digests)} entries where the head counts {count}"]
    if count < 1 or digests[count - 1] != digest:
        return [f"entry {count} is not the one that the head names: the log was rewritten"]
    return []


def main() -> int:
    """Print the verdict; status 1 when something is wrong."""
    verdict = verify_journal(Path(sys.argv[1]))
    for fault in verdict.faults:
        sys.stderr.write(fault + "\n")
    sys.stdout.write(f"{verdict.entries} entries, head {verdict.head}\n")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
