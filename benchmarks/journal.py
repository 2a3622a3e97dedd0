"""The journal: appending, reading and verifying many entries, with and without a signed anchor.

    python benchmarks/journal.py [--entries 20000] [--rounds 5]

Entries are those of jobs (about 640 bytes). Verifying is measured in a new process each round, from the
start of the check to its verdict, the import of libraries left out; beside it the whole command
`python -m modelyard.verify.journal` as a user waits for it. Appending is measured one entry at a time and
in batches of 100, and the calls of fsync are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard.core.journal import Draft, Journal
from modelyard.core.signing import open_signer
from modelyard.runs.anchoring import write_anchor
from modelyard.runs.yard import Yard, open_yard
from modelyard.verify.journal import verify_journal

VERIFY = """
import sys, time
from pathlib import Path
from modelyard.verify.anchor import read_anchors
from modelyard.verify.journal import verify_journal
import modelyard.verify.signature
begun = time.perf_counter()
anchors, problems = read_anchors([Path(each) for each in sys.argv[3:]], Path(sys.argv[2]))
verdict = verify_journal(Path(sys.argv[1]), anchors=anchors)
wall_s = time.perf_counter() - begun
assert not problems and not verdict.faults, (problems, verdict.faults[:3])
print(wall_s)
"""
BATCH = 100


def main() -> None:
    """Measure and print one JSON value."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        yard = open_yard(Path(folder) / "yard", create=True)
        told: dict[str, Any] = {"entries": chosen.entries, "load": os.getloadavg()[0]}
        told["append"] = {
            "one": _appended(Journal(Path(folder) / "single"), 1, 200),
            f"batch of {BATCH}": _appended(yard.journal, BATCH, chosen.entries // BATCH),
        }
        told["bytes_per_entry"] = round(yard.journal.log.stat().st_size / chosen.entries)
        anchor = _anchored(yard, Path(folder) / "anchor.json")
        places = [str(yard.journal.folder), str(yard.keys_dir / "trusted")]
        told["read_s"] = _median(lambda: float(_timed(lambda: list(yard.journal.read()))), chosen.rounds)
        told["verify_s"] = _median(lambda: _process("-c", VERIFY, *places), chosen.rounds)
        told["verify_with_anchor_s"] = _median(
            lambda: _process("-c", VERIFY, *places, str(anchor)), chosen.rounds
        )
        command = ["-m", "modelyard.verify.journal", places[0]]
        told["verify_command_s"] = _median(
            lambda: _timed(lambda: _process(*command, seconds=False)), chosen.rounds
        )
    print(json.dumps(told, indent=2))


def _appended(journal: Journal, size: int, batches: int) -> dict[str, float]:
    """Milliseconds and calls of fsync an append."""
    calls, real = [0], os.fsync

    def counted(descriptor: int) -> None:
        calls[0] += 1
        real(descriptor)

    os.fsync = counted
    try:
        spent = _timed(lambda: [journal.append(_drafts(n * size, size)) for n in range(batches)])
    finally:
        os.fsync = real
    return {"ms": round(1000 * spent / batches, 3), "fsyncs": calls[0] / batches}


def _drafts(start: int, count: int) -> list[Draft]:
    return [
        Draft(
            kind="job.finished",
            run=f"run-{number % 7}",
            data={
                "key": f"job-{number:060d}", "step": f"train/member-{number % 50}", "attempt": 1,
                "state": "SUCCEEDED", "reason": "", "cpu_s": 1.5 + number / 7,
                "outputs": {"model": f"sha256:{number:064x}"}, "evidence": [f"sha256:{number + 1:064x}"],
            },
        )
        for number in range(start, start + count)
    ]  # fmt: skip


def _anchored(yard: Yard, path: Path) -> Path:
    verdict = verify_journal(yard.journal.folder)
    signer = open_signer(yard.keys_dir / "yard.pem", create=True)
    write_anchor(yard, (verdict.entries, verdict.head), path, signer=signer)
    return path


def _process(*arguments: str, seconds: bool = True) -> float:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout) if seconds else 0.0


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _median(measure: Callable[[], float], rounds: int) -> float:
    return round(statistics.median(measure() for _ in range(rounds)), 3)


if __name__ == "__main__":
    main()
