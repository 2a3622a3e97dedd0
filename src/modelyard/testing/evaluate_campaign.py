"""The kill campaign over `modelyard evaluate`: `python -m modelyard.testing.evaluate_campaign --kills 50`.

Each trial evaluates a model of a server that fails now and then, is killed once, is resumed and is then held
against what was promised: the tables say what they say when nobody is killed; no question whose answer was
kept is asked again; what was under way at the kill, and nothing else, is asked twice; and a server that
knows Idempotency-Key bills each question once.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from modelyard.core.failpoints import EVALUATE_NAMES
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.testing.openai_server import FakeServer, fake_server

PARALLEL = 4
_FAULTS = ("--limited", "37", "--broken", "29", "--cut", "41", "--delay-s", "0.02", "--idempotent")
#: What must not depend on when and where it was evaluated.
_SAME = ("model", "example_id", "sample", "value", "error", "cost_usd", "prompt_tokens", "output_digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What all trials share: the set, and the rows when nobody is killed."""

    examples: Path
    rows: Sequence[Mapping[str, Any]]


def prepare(folder: Path, *, questions: int) -> Yardstick:
    """Write a set of sums and evaluate it once."""
    folder.mkdir(parents=True)
    path = folder / "sums.jsonl"
    lines = (
        {"id": f"q{i}", "prompt": f"What is {i} + {7 * i % 31}?", "answers": [str(i + 7 * i % 31)],
         "scorer": "numeric"}
        for i in range(questions)
    )  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with fake_server(folder / "log.jsonl", *_FAULTS) as server:
        subprocess.run(_command(folder, server, path), cwd=folder, check=True, capture_output=True)
    return Yardstick(examples=path, rows=_rows(folder / "out"))


def run_trial(folder: Path, kill: Kill, seed: int, *, yardstick: Yardstick) -> tuple[Survival, list[Broken]]:
    """One kill over one evaluation; what happened, and the promises broken."""
    folder.mkdir(parents=True)
    with fake_server(folder / "log.jsonl", *_FAULTS) as server:
        trial = Trial(
            argv=_command(folder, server, yardstick.examples),
            cwd=folder,
            environment={**os.environ, "PYTHONWARNINGS": "ignore"},
            json_files=(folder / "out" / "evaluation.json",),
        )
        survival = survive(trial, kill, seed=seed)
        requests = server.requests()
    answered = Counter(each["key"] for each in requests if each["status"] == 200)
    twice = [key for key, times in answered.items() if times > 1]
    cuts = sum(each["times"] > 1 for each in _kept(folder)) if folder.exists() else 0
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "whole JSON": "; ".join(survival.broken_json[:3]),
        "the same rows": "" if _rows(folder / "out") == yardstick.rows else "the results differ",
        "no kept answer asked again": ", ".join(_asked_again(folder, requests)[:3]),
        "billed once": _billed_twice(requests),
        "only what was under way is asked twice": ""
        if len(twice) <= cuts
        else f"{len(twice)} answered twice, {cuts} known to have been asked more than once",
    }
    return survival, broken_promises(kill, promises)


def _asked_again(folder: Path, requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that the server was asked after their answer had been kept."""
    last: dict[str, float] = {}
    for each in requests:
        last[each["key"]] = max(last.get(each["key"], 0.0), each["time"])
    return [
        each["key"]
        for each in _kept(folder)
        if last.get(each["key"], 0.0) > datetime.fromisoformat(each["answered_at"]).timestamp()
    ]


def _billed_twice(requests: Sequence[Mapping[str, Any]]) -> str:
    billed = Counter(each["key"] for each in requests if each["billed"])
    twice = [key for key, times in billed.items() if times > 1]
    return f"{len(twice)} keys were billed more than once" if twice else ""


def _kept(folder: Path) -> list[dict[str, Any]]:
    """The rows of the file of answers."""
    (path,) = (folder / "yard" / "answers").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT key, times, answered_at FROM answers")]


def _rows(out: Path) -> list[dict[str, Any]]:
    path = out / "results.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path, columns=list(_SAME)).to_pylist() if path.exists() else []
    return rows


def _command(folder: Path, server: FakeServer, examples: Path) -> list[str]:
    pool = {
        "name": "adder", "endpoint": server.endpoint, "parallel": PARALLEL, "retries": 3,
        "price": {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 2.0},
    }  # fmt: skip
    (folder / "yard.yaml").write_text(json.dumps({"name": "campaign", "pool": [pool]}))
    run = [sys.executable, "-m", "modelyard.cli.main", "evaluate", "yard.yaml", "--set", str(examples)]
    return [*run, "--yard", str(folder / "yard"), "--output", str(folder / "out")]


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=200)
    chosen = parser.parse_args()
    kills = [
        *failpoint_kills(only=EVALUATE_NAMES, later=(1, 2, 60)),
        *random_kills(chosen.kills, within_s=3.0, seed=chosen.seed),
    ]
    with tempfile.TemporaryDirectory(prefix="modelyard-evaluate-") as root:
        yardstick = prepare(Path(root) / "inputs", questions=chosen.questions)
        return run_campaign(kills, partial(run_trial, yardstick=yardstick), seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
