"""The kill campaign over `modelyard tune`: `python -m modelyard.testing.tune_campaign --kills 100`.

Each trial of the campaign searches with one of the algorithms, is killed once (the tuner, a wrapper or a
training command), is resumed and is then held against what was promised: every trial of the study has
ended, no training command ran twice to its end or beside another of its trial, the journal is sound, and
the trials and the best are those of a search that nobody killed, where one trial runs at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modelyard.core.failpoints import NAMES, TUNE_NAMES
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.verify.journal import verify_journal

#: Algorithms by name, and whether they look at steps.
ALGORITHMS = {
    "random": False, "tpe": False, "cmaes": False, "bayesian": False, "asha": True, "hyperband": True,
}  # fmt: skip
#: Failpoints that a search does not pass.
_ELSEWHERE = ("manifest.before_write", "artifacts.before_rename")
_TUNE = """\
name: killed
command: "{{python}} -m modelyard.testing.training_job {{params}} --epochs {epochs} --folder {{trial_dir}}
  --parent '{{parent_dir}}' --log starts.log"
metric: val_loss
space:
  lr: {{low: 1e-4, high: 1.0, default: 1e-3}}
  layers: {{low: 1, high: 6}}
  opt: {{choices: [adam, sgd]}}
  momentum: {{low: 0, high: 0.99, when: {{opt: sgd}}}}
algorithm: {algorithm}
trials: {trials}
parallel: {parallel}
retries: 3
poll: 0.02s
{rungs}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What an algorithm's search comes to when nobody is killed: the trials as they are compared."""

    algorithm: str
    parallel: int
    trials: int
    history: Sequence[Mapping[str, Any]]


def prepare(folder: Path, algorithm: str, *, parallel: int, trials: int) -> Yardstick:
    """Search once without a kill."""
    _declare(folder, algorithm, parallel=parallel, trials=trials)
    subprocess.run(_command("run", "tune.yaml"), cwd=folder, check=True, capture_output=True)
    return Yardstick(algorithm=algorithm, parallel=parallel, trials=trials, history=_history(folder))


def run_trial(folder: Path, kill: Kill, seed: int, *, yardstick: Yardstick) -> tuple[Survival, list[Broken]]:
    """One kill over one search; what happened, and the promises broken."""
    _declare(folder, yardstick.algorithm, parallel=yardstick.parallel, trials=yardstick.trials)
    trial = Trial(
        argv=_command("run", "tune.yaml"), cwd=folder, environment={**os.environ, "PYTHONWARNINGS": "ignore"},
        json_files=[folder / ".modelyard/runs/killed" / name for name in ("plan.json", "study.json")],
    )  # fmt: skip
    survival = survive(trial, kill, seed=seed)
    history = _history(folder) if survival.done else ()
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "valid at every instant": "; ".join(survival.broken_json[:3]),
        "sound journal": "; ".join(verify_journal(folder / ".modelyard/journal").faults[:3]),
        "none lost": _lost(history, yardstick),
        "none doubled": _doubled(folder),
        "the same search": _difference(history, yardstick) if yardstick.parallel == 1 else "",
    }
    return survival, broken_promises(kill, promises)


def _declare(folder: Path, algorithm: str, *, parallel: int, trials: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rungs = "rungs: {low: 1, high: 9, eta: 3}" if ALGORITHMS[algorithm] else ""
    text = _TUNE.format(algorithm=algorithm, trials=trials, parallel=parallel, rungs=rungs, epochs=9)
    (folder / "tune.yaml").write_text(text)


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "modelyard.cli.main", "tune", *words]


def _history(folder: Path) -> list[Mapping[str, Any]]:
    """Every trial as far as two searches are compared."""
    said = subprocess.run(
        _command("history", "killed", "--json"), cwd=folder, check=True, capture_output=True, text=True
    )
    compared = ("number", "state", "values", "assignments", "source", "budget", "curve")
    return [{name: trial[name] for name in compared} for trial in json.loads(said.stdout)]


def _lost(history: Sequence[Mapping[str, Any]], yardstick: Yardstick) -> str:
    ended = Counter(trial["state"] for trial in history)
    whole = ended["COMPLETE"] + ended["PRUNED"] == len(history) == len(yardstick.history)
    return "" if whole else f"{dict(ended)} where there are to be {len(yardstick.history)}"


def _doubled(folder: Path) -> str:
    """Trials of which two attempts succeeded, or ran side by side."""
    entries = map(json.loads, (folder / ".modelyard/journal/journal.jsonl").read_text().splitlines())
    succeeded = Counter(
        entry["data"]["step"]
        for entry in entries
        if entry["kind"] == "job.finished" and entry["data"]["state"] == "SUCCEEDED"
    )
    twice = [trial for trial, count in succeeded.items() if count > 1]
    log = folder / "starts.log"
    words = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    beside = [trial for word, trial, *_ in words if word == "overlap"]
    return ", ".join([*(f"{each} ran twice" for each in twice), *(f"{each} overlapped" for each in beside)])


def _difference(history: Sequence[Mapping[str, Any]], yardstick: Yardstick) -> str:
    for found, expected in zip(history, yardstick.history, strict=False):
        if found != expected:
            return f"trial {expected['number']}: {found} where {expected} was expected"[:600]
    return ""


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    chosen = parser.parse_args()
    names = chosen.algorithms.split(",")
    points = [name for name in (*NAMES, *TUNE_NAMES) if name not in _ELSEWHERE]
    kills = [
        *failpoint_kills(only=points, later=(1, 3)),
        *random_kills(chosen.kills, within_s=3.0, seed=chosen.seed),
    ]
    with tempfile.TemporaryDirectory(prefix="modelyard-tune-") as root:
        yardsticks = [
            prepare(Path(root) / f"{name}-{parallel}", name, parallel=parallel, trials=chosen.trials)
            for name in names
            for parallel in (1, 3)
        ]
        return run_campaign(kills, partial(_any_trial, yardsticks=yardsticks), seed=chosen.seed)


def _any_trial(
    folder: Path, kill: Kill, seed: int, *, yardsticks: Sequence[Yardstick]
) -> tuple[Survival, list[Broken]]:
    return run_trial(folder, kill, seed, yardstick=yardsticks[seed % len(yardsticks)])


if __name__ == "__main__":
    sys.exit(main())
