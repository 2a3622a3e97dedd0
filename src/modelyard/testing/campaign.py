"""A campaign of kills: trial after trial of one capability, and the promises that were broken."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.testing.kills import Kill, Survival


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A promise that a trial broke."""

    kill: str
    promise: str
    detail: str


def broken_promises(kill: Kill, promises: Mapping[str, str]) -> list[Broken]:
    """Those promises that something is said against."""
    return [Broken(kill=str(kill), promise=p, detail=d) for p, d in promises.items() if d]


def run_campaign(
    kills: Sequence[Kill], trial: Callable[[Path, Kill, int], tuple[Survival, list[Broken]]], *, seed: int
) -> int:
    """Run a trial for each kill in a fresh folder, and print what was found as JSON.

    Args:
        kills: One a trial.
        trial: Runs a trial in a folder that does not exist yet, with a seed of its own.
        seed: Of the first trial.

    Returns:
        An exit status: 1 when a promise was broken.
    """
    broken: list[Broken] = []
    fired = runs = 0
    with tempfile.TemporaryDirectory(prefix="modelyard-kills-") as root:
        for number, kill in enumerate(kills):
            survival, faults = trial(Path(root, str(number)), kill, seed + number)
            fired += survival.killed > 0
            runs += len(survival.statuses)
            broken.extend(faults)
            sys.stderr.write(
                f"{number + 1}/{len(kills)} {kill}: {survival.statuses}{' BROKEN' if faults else ''}\n"
            )
    result = {
        "kills": len(kills),
        "fired": fired,
        "runs": runs,
        "broken": [f"{b.kill}: {b.promise}: {b.detail}" for b in broken],
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if broken else 0
