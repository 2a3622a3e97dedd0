"""The kill campaign over `modelyard train`: `python -m modelyard.testing.train_campaign --kills 50`.

Each trial trains a pool of small members with real commands, is killed once, is taken up again and
is then held against what was promised: every member succeeded once, no two attempts at a member
ever overlapped (each member holds a lock while it works and tells when it finds it taken), nothing
is alive, the manifest was JSON whenever it was looked at, and the journal verifies.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

from modelyard.core.journal import Journal
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.verify.journal import verify_journal

#: A member: takes its lock or tells of an overlap, works, leaves a helper behind, writes its model.
_MEMBER = """
import fcntl, os, subprocess, sys, time
folder, seconds = sys.argv[1], float(sys.argv[2])
lock = open(os.path.join(folder, "lock"), "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(os.path.join(folder, "overlap"), "a").write(os.environ["MODELYARD_JOB_KEY"] + "\\n")
    sys.exit(9)
subprocess.Popen(["sleep", "600"], start_new_session=True, close_fds=True)
time.sleep(seconds)
with open(os.path.join(folder, "model.txt"), "w") as model:
    model.write("trained\\n")
"""


def write_pool(folder: Path, *, members: int, seconds: float) -> Path:
    """An ELPA training file with so many members that each work so long."""
    (folder / "member.py").write_text(_MEMBER)
    models = [
        {
            "name": f"m{i}",
            "group": "online" if i % 2 else "offline",
            "train_cmd": f"{{python}} member.py {{model_dir}} {seconds}",
            "outputs": {"model": "{model_dir}/model.txt"},
            "retries": 2,
            "backoff_s": 0.05,
        }
        for i in range(members)
    ]
    config = folder / "train.json"
    config.write_text(json.dumps({"models": models}))
    return config


def run_trial(
    folder: Path, kill: Kill, *, members: int, seconds: float, seed: int
) -> tuple[Survival, list[Broken]]:
    """One kill over one fresh run; what happened, and the promises broken."""
    folder.mkdir(parents=True)
    config = write_pool(folder, members=members, seconds=seconds)
    run_dir, yard, manifest = folder / "run", folder / "yard", folder / "manifest.json"
    argv = [
        sys.executable,
        "-m",
        "modelyard.cli.main",
        "train",
        "--config",
        str(config),
        "--run-dir",
        str(run_dir),
    ]
    argv += ["--manifest-out", str(manifest), "--execute", "--jobs", "2", "--yard", str(yard)]
    trial = Trial(
        argv=argv,
        cwd=folder,
        environment={**os.environ, "PYTHONWARNINGS": "ignore"},
        json_files=(manifest, run_dir / "manifest.json"),
    )
    survival = survive(trial, kill, seed=seed)
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "manifest is JSON": "; ".join(survival.broken_json[:3]),
        "no overlap": ", ".join(str(path) for path in run_dir.glob("models/*/overlap")),
        "journal verifies": "; ".join(verify_journal(yard / "journal").faults),
        "one success each": _not_once(yard, members),
        "manifest says ok": _not_ok(manifest),
    }
    return survival, broken_promises(kill, promises)


def _not_once(yard: Path, members: int) -> str:
    """Which members do not have exactly one attempt that succeeded."""
    ends = (e.data for e in Journal(yard / "journal").read() if e.kind == "job.finished")
    count = Counter(data["step"] for data in ends if data["state"] == "SUCCEEDED")
    wrong = {f"train/m{i}": count[f"train/m{i}"] for i in range(members) if count[f"train/m{i}"] != 1}
    return str(wrong) if wrong else ""


def _not_ok(manifest: Path) -> str:
    models = json.loads(manifest.read_bytes())["models"] if manifest.exists() else []
    return ", ".join(f"{m['name']}: {m['status']}" for m in models if m["status"] != "ok") or (
        "" if models else "none"
    )


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.2, help="how long each member works")
    chosen = parser.parse_args()
    within_s = 0.6 + chosen.members * chosen.seconds / 2 * 1.3
    kills = [*failpoint_kills(), *random_kills(chosen.kills, within_s=within_s, seed=chosen.seed)]

    def trial(folder: Path, kill: Kill, seed: int) -> tuple[Survival, list[Broken]]:
        return run_trial(folder, kill, members=chosen.members, seconds=chosen.seconds, seed=seed)

    return run_campaign(kills, trial, seed=chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
