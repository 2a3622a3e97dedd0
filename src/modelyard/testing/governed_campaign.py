"""The kill campaign over a whole governed run: `python -m modelyard.testing.governed_campaign --kills 100`.

Each trial trains a candidate by a real command, certifies it against a baseline, and promotes it to stage
and prod with an approval. It is killed once, driver or any of its processes, run again until prod serves the
candidate, and held against what was promised: no submission lost or made twice, no alias without evidence,
the verdict of whoever was not killed, the journal sound. With `--registry postgresql://...` the registry is
there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from modelyard.core.failpoints import GOVERNED_NAMES, NAMES
from modelyard.core.files import read_json
from modelyard.core.signing import OWN_KEY, TRUSTED, open_signer
from modelyard.lifecycle.governed.following import follow_all
from modelyard.lifecycle.governed.proving import REGISTRY_VARIABLE
from modelyard.lifecycle.governed.run_training import run_training
from modelyard.registry.audit import audit
from modelyard.registry.ledger import reconcile
from modelyard.registry.promotion import Promotion, promote
from modelyard.registry.records import ALIASES, PROD
from modelyard.runs.states import standing
from modelyard.runs.yard import open_yard
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.testing.promotion_campaign import opened, own_schema
from modelyard.verify.certificate import verify_certificate
from modelyard.verify.journal import verify_journal

RUN, ITEMS = "r1", 24
_WHOLE_WAY = (
    "requested", "routed", "planned", "submit_intent", "submitted", "running", "artifacts_ready",
    "paired_eval", "pass", "approval", "stage", "shadow", "prod",
)  # fmt: skip
_TRAIN = """\
import json, os, sys, time
from pathlib import Path
with open("started.log", "a") as log:
    log.write(os.environ["MODELYARD_JOB_KEY"] + "\\n")
time.sleep(0.3)
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
lines = [{"model": "adder", "example_id": f"q{n}", "sample": 0, "text": str(n + 5)} for n in range(24)]
(out / "answers.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
"""
#: Not passed by a run whose registry, evaluation and steps are as here.
_UNSEEN = frozenset({"wrapper.before_claim"})


def make(folder: Path) -> None:
    """The files of a yard whose candidate knows every sum and whose baseline a third of them."""
    (folder / "providers").mkdir(parents=True)
    items = [
        {"prompt_id": f"q{n}", "messages": [{"role": "user", "content": f"What is {n} + 5?"}],
         "scorer": {"id": "numeric"}, "answers": [str(n + 5)], "critical": n < 2}
        for n in range(ITEMS)
    ]  # fmt: skip
    old = [
        {"model": "old", "example_id": f"q{n}", "sample": 0, "text": str(n + 5) if n < ITEMS // 3 else "?"}
        for n in range(ITEMS)
    ]
    for name, rows in (("pack.jsonl", items), ("old.jsonl", old)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "train.py").write_text(_TRAIN)
    governance = {
        "pack": "pack.jsonl", "baseline": "old", "budget": {"iterations": 1},
        "candidates": [{"name": "adder", "base": "none", "data": ["old.jsonl"]}],
    }  # fmt: skip
    pool = [{"name": "old", "engine": "replay", "answers": "old.jsonl"}]
    documents = {
        "yard.yaml": {"name": "campaign", "pool": pool, "governance": governance},
        "providers/local.yaml": {"train": {"run": "{python} train.py {model_dir}"}},
        "providers/replies.yaml": {
            "infer": {"entry": {"engine": "replay", "answers": "{model_dir}/answers.jsonl"}}
        },
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    yard = open_yard(folder / ".modelyard", create=True)
    open_signer(yard.keys_dir / OWN_KEY, create=True)
    approver = open_signer(folder / "approver.pem", create=True)
    (yard.keys_dir / TRUSTED / "approver.pem").write_text(approver.public_pem)


def drive(folder: Path, url: str | None) -> int:
    """Carry the run to prod, or what is left of that; the exit status."""
    environment = {**os.environ, **({REGISTRY_VARIABLE: url} if url else {})}
    result = run_training(
        folder / "run", run_id=RUN, model_candidate="adder", train_provider="local",
        infer_provider="replies", live=True, file=folder / "yard.yaml", yard=folder / ".modelyard",
        environment=environment,
    )  # fmt: skip
    if result["gate_result"] != "pass":
        return 1
    evidence = Path(read_json(Path(result["evidence"]))["report"]["path"])
    with opened(folder, url) as (yard, registry):
        for alias in ALIASES:
            signer = open_signer(folder / "approver.pem", create=False) if alias == PROD else None
            if alias not in registry.aliases():
                wanted = Promotion(
                    version="adder", alias=alias, evidence=evidence, actor="driver", signer=signer
                )
                promote(yard, registry, wanted)
        reconcile(yard, registry)
        follow_all(yard, registry)
    return 0


def run_trial(
    folder: Path, kill: Kill, seed: int, *, server: str | None = None
) -> tuple[Survival, list[Broken]]:
    """One kill over one run; what happened, and the promises broken."""
    make(folder)
    with own_schema(server) if server else nullcontext(None) as url:
        argv = [sys.executable, "-m", "modelyard.testing.governed_campaign", "--drive", str(folder)]
        trial = Trial(
            argv=[*argv, *(["--registry", url] if url else [])],
            cwd=folder,
            environment={**os.environ, "PYTHONWARNINGS": "ignore"},
            json_files=[folder / "run" / "progress.json", folder / "run" / "manifests" / "run_manifest.json"],
        )
        survival = survive(trial, kill, seed=seed)
        promises = {
            "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-800:]}",
            "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
            "whole JSON": "; ".join(survival.broken_json[:3]),
            **kept(folder, url),
        }
    return survival, broken_promises(kill, promises)


def kept(folder: Path, url: str | None) -> Mapping[str, str]:
    """What is promised at the end, and what is said against it."""
    log = folder / "started.log"
    started = Counter(log.read_text().split()) if log.exists() else Counter()
    with opened(folder, url) as (yard, registry):
        entries = list(yard.journal.read())
        intents = {entry.data["key"] for entry in entries if entry.kind == "job.intent"}
        finished = [entry for entry in entries if entry.kind == "job.finished"]
        succeeded = [entry for entry in finished if entry.data["state"] == "SUCCEEDED"]
        moves = [move.target for move in standing(yard.journal, RUN).moves]
        found, journal = audit(yard, registry), verify_journal(yard.journal.folder).faults
        served = {alias: each.label for alias, each in registry.aliases().items()}
        issued = [entry.data for entry in entries if entry.kind == "certificate.issued"]
    twice = [key for key, count in started.items() if count > 1]
    way = [state for state in moves if state in _WHOLE_WAY]
    return {
        "no job started twice": "" if not twice else f"{twice}",
        "no submission without its intent": "" if set(started) <= intents else f"{set(started) - intents}",
        "none lost": "" if len(finished) == len(intents) else f"{len(intents)} intents, {len(finished)} ends",
        "one training succeeded": "" if len(succeeded) == 1 else f"{len(succeeded)}",
        "the whole way": "" if tuple(dict.fromkeys(way)) == _WHOLE_WAY else f"{moves}",
        "one certificate": "" if len(issued) == 1 else f"{len(issued)} issued",
        "the verdict": _verdict(issued),
        "both aliases serve": "" if served == dict.fromkeys(ALIASES, "adder@1") else f"{served}",
        "no alias without evidence": "; ".join(found.faults[:3]),
        "sound journal": "; ".join(journal[:3]),
    }


def _verdict(issued: Sequence[Mapping[str, Any]]) -> str:
    """That the certificate holds and says what it says when nobody is killed."""
    for data in issued:
        found = verify_certificate(Path(data["report"]))
        counts = read_json(Path(data["report"]))["counts"]
        right = {"n11": ITEMS // 3, "n10": 0, "n01": ITEMS - ITEMS // 3, "n00": 0}
        if found.faults or found.verdict != "pass":
            return f"{found.verdict}: {'; '.join(found.faults[:3])}"
        if {name: counts[name] for name in right} != right:
            return f"counts {counts}"
    return ""


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100, help="kills at random instants")
    parser.add_argument("--within", type=float, default=6.0, help="seconds within which they fall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--registry", help="a PostgreSQL database; without it SQLite")
    parser.add_argument("--drive", type=Path, help="carry out the run in a prepared folder, once")
    chosen = parser.parse_args()
    if chosen.drive is not None:
        return drive(chosen.drive, chosen.registry)
    names = [name for name in (*GOVERNED_NAMES, *NAMES) if name not in _UNSEEN]
    plan = [
        *failpoint_kills(only=names, later=(1,)),
        *random_kills(chosen.kills, within_s=chosen.within, seed=chosen.seed),
    ]
    return run_campaign(plan, partial(run_trial, server=chosen.registry), seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
