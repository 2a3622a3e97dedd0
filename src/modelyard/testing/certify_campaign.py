"""The kill campaign over `modelyard certify`: `python -m modelyard.testing.certify_campaign --kills 50`.

Each trial compares two models of one server, is killed once, is resumed and is then held against what was
promised: the report and the answers say what they say when nobody is killed; no question whose answer was
kept is asked again; what was under way at the kill, and nothing else, is asked twice; the pack was looked at
once; and the one certificate in the journal is the report that lies there.

All trials ask the same server, so that they are the same comparison, each in a yard of its own.
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

from modelyard.core.digests import digest_path
from modelyard.core.failpoints import CERTIFY_NAMES, EVALUATE_NAMES
from modelyard.evidence.report import REPORT
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.testing.openai_server import FakeServer, fake_server
from modelyard.verify.journal import verify_journal

#: Where a certification asks, it passes these failpoints of an evaluation.
ASKING_NAMES = EVALUATE_NAMES[:3]
SERVER = ("--delay-s", "0.01")
#: What may differ between two reports of one comparison: the answers' latencies are in their digest, and
#: somebody may work on the code meanwhile.
_OWN = ("created_at", "signature", "raw_outputs_digest", "code_digest")
_PARALLEL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What all trials share: server, pack, command, and what came of it when nobody was killed."""

    server: FakeServer
    pack: Path
    options: tuple[str, ...]
    report: Mapping[str, Any]
    answers: Sequence[Mapping[str, Any]]


def prepare(folder: Path, server: FakeServer, *, items: int, options: Sequence[str] = ()) -> Yardstick:
    """Write a pack of sums, of which the baseline misreads every other, and certify once."""
    folder.mkdir(parents=True)
    path = folder / "pack.jsonl"
    lines = (
        {"prompt_id": f"q{i}", "prompt": f"What is {i} + {7 * i % 31 + 1}{'?' if i % 2 else ''}",
         "scorer": {"id": "numeric", "params": {"answers": [str(i + 7 * i % 31 + 1)]}}, "critical": i < 3}
        for i in range(items)
    )  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    empty = Yardstick(server=server, pack=path, options=tuple(options), report={}, answers=())
    subprocess.run(_command(folder, empty), cwd=folder, check=True, capture_output=True)
    report, answers = _left(folder)
    return Yardstick(server=server, pack=path, options=tuple(options), report=report, answers=answers)


def run_trial(folder: Path, kill: Kill, seed: int, *, yardstick: Yardstick) -> tuple[Survival, list[Broken]]:
    """One kill over one certification; what happened, and the promises broken."""
    folder.mkdir(parents=True)
    before = len(yardstick.server.requests())
    trial = Trial(
        argv=_command(folder, yardstick),
        cwd=folder,
        environment={**os.environ, "PYTHONWARNINGS": "ignore"},
        json_files=(_place(folder, yardstick) / REPORT,),
    )
    survival = survive(trial, kill, seed=seed)
    requests, kept = yardstick.server.requests()[before:], _kept(_place(folder, yardstick))
    asked = Counter(each["key"] for each in requests)
    again = [row["key"] for row in kept if _last(requests, row["key"]) > _moment(row["answered_at"])]
    report, answers = _left(folder)
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "whole JSON": "; ".join(survival.broken_json[:3]),
        "the same report": _differences(report, yardstick.report),
        "the same answers": "" if answers == yardstick.answers else "the answers differ",
        "no kept answer asked again": ", ".join(again[:3]),
        "only what was under way is asked twice": _excess(asked, kept),
        "one certificate on record": _journal_fault(folder, _place(folder, yardstick)),
    }
    return survival, broken_promises(kill, promises)


def _differences(report: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(sorted(name for name in {*report, *other} if report.get(name) != other.get(name)))


def _left(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The report and the answers, without what may differ; empty where there are none."""
    paths = list((folder / "yard" / "certificates").glob(f"*/{REPORT}"))
    if not paths:
        return {}, []
    report = {name: value for name, value in json.loads(paths[0].read_bytes()).items() if name not in _OWN}
    answers = [json.loads(line) for line in (paths[0].parent / "answers.jsonl").read_text().splitlines()]
    for answer in answers:
        del answer["latency_s"]
    return report, answers


def _place(folder: Path, yardstick: Yardstick) -> Path:
    return folder / "yard" / "certificates" / str(yardstick.report["id"])


def _kept(place: Path) -> list[dict[str, Any]]:
    """The rows of both files of answers."""
    rows = []
    for path in place.glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            rows += [dict(row) for row in connection.execute("SELECT key, times, answered_at FROM answers")]
    return rows


def _last(requests: Sequence[Mapping[str, Any]], key: str) -> float:
    return max((each["time"] for each in requests if each["key"] == key), default=0.0)


def _moment(told: str | None) -> float:
    return datetime.fromisoformat(told).timestamp() if told else float("inf")


def _excess(asked: Counter[str], kept: Sequence[Mapping[str, Any]]) -> str:
    """Keys that the server was asked more often than their file says, or than a kill explains."""
    twice = {key for key, times in asked.items() if times > 1}
    marked = {row["key"] for row in kept if row["times"] > 1}
    if twice - marked:
        return f"{len(twice - marked)} asked twice and not known to be"
    return f"{len(marked)} asked twice where {_PARALLEL} were under way" if len(marked) > _PARALLEL else ""


def _journal_fault(folder: Path, place: Path) -> str:
    """What is wrong with the journal; empty where nothing is."""
    log = folder / "yard" / "journal" / "journal.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    issued = [entry["data"]["report_digest"] for entry in entries if entry["kind"] == "certificate.issued"]
    report = place / REPORT
    if issued != ([digest_path(report)] if report.exists() else []):
        return f"{len(issued)} certificates are on record"
    looks = {entry["run"] for entry in entries if entry["kind"] == "set.opened"}
    if len(looks) != 1:
        return f"{len(looks)} looks are on record"
    return "; ".join(str(fault) for fault in verify_journal(log.parent).faults)


def _command(folder: Path, yardstick: Yardstick) -> list[str]:
    asked = {"endpoint": yardstick.server.endpoint, "model": "adder", "parallel": _PARALLEL, "retries": 3}
    pool = [{"name": "new", **asked}, {"name": "old", **asked, "api": "completions", "template": "{prompt}1"}]
    (folder / "yard.yaml").write_text(json.dumps({"name": "campaign", "pool": pool}))
    run = [sys.executable, "-m", "modelyard.cli.main", "certify", "yard.yaml", "--pack", str(yardstick.pack)]
    named = ["--candidate", "new", "--baseline", "old", "--yard", str(folder / "yard")]
    return [*run, *named, *yardstick.options]


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--sequential", action="store_true")
    chosen = parser.parse_args()
    kills = [
        *failpoint_kills(only=CERTIFY_NAMES, later=(1,)),
        *failpoint_kills(only=(*ASKING_NAMES, "certify.after_block"), later=(2, 7)),
        *random_kills(chosen.kills, within_s=3.0, seed=chosen.seed),
    ]
    options = ("--sequential",) if chosen.sequential else ()
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-certify-") as root,
        fake_server(Path(root) / "log.jsonl", *SERVER) as server,
    ):
        yardstick = prepare(Path(root) / "inputs", server, items=chosen.items, options=options)
        return run_campaign(kills, partial(run_trial, yardstick=yardstick), seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
