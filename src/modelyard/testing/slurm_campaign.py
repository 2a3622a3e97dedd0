"""The kill campaign over Slurm: `python -m modelyard.testing.slurm_campaign --kills 60`.

One real cluster serves all trials. Each trial trains a pool of small members by `modelyard train --backend
slurm`; a third of the kills end the driver or any process of a job, a third slurmctld, a third the daemons
of the nodes (every second time with their step daemons, so that running jobs lose their node); daemons are
started again a second later. Slurm itself reconciles its jobs with the nodes every hundred seconds and more;
here the nodes are told to register every other second. Then the trial is held against what was promised:
the run is done, every member succeeded once, no attempt was started twice, no two attempts at a member
overlapped, nothing is left in the queue or alive, the manifest was JSON whenever it was looked at, the
journal verifies.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelyard.core.failpoints import SLURM_NAMES
from modelyard.core.journal import Journal
from modelyard.testing.campaign import Broken, broken_promises, run_campaign
from modelyard.testing.kills import Kill, Survival, Trial, failpoint_kills, random_kills, survive
from modelyard.testing.slurm_cluster import Shape, SlurmCluster, running_cluster
from modelyard.verify.journal import verify_journal

#: A member: notes that it starts, takes its lock or tells of an overlap, works, writes its model.
_MEMBER = """
import fcntl, os, sys, time
folder, seconds = sys.argv[1], float(sys.argv[2])
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write(os.environ["MODELYARD_JOB_KEY"] + "\\n")
lock = open(os.path.join(folder, "lock"), "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    open(os.path.join(folder, "overlap"), "a").write(os.environ["MODELYARD_JOB_KEY"] + "\\n")
    sys.exit(9)
time.sleep(seconds)
with open(os.path.join(folder, "model.txt"), "w") as model:
    model.write("trained\\n")
"""
_DOWN_S = 1.0
_DRAIN_S = 20.0
_NEVER_S = 1e9
_SILENCE_S = 15
_REGISTER_S = 2.5
DAEMONS = ("slurmctld", "slurmd", "nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonKill(Kill):
    """Kill daemons of the cluster after so many seconds, and start them again a second later."""

    # slurmctld | slurmd (of both nodes) | nodes (their step daemons too)
    daemon: str

    def __str__(self) -> str:
        return f"{self.daemon} after {self.after_s:.3f} s"


def mixed_kills(count: int, *, within_s: float, seed: int) -> list[Kill]:
    """A third of the kills for our own processes, a third for the controller, a third for the nodes."""
    chance = random.Random(seed)
    ours = random_kills(count - 2 * (count // 3), within_s=within_s, seed=seed)
    controller = ["slurmctld"] * (count // 3)
    nodes = ["slurmd" if number % 2 else "nodes" for number in range(count // 3)]
    daemons = [DaemonKill(after_s=chance.uniform(0.0, within_s), daemon=d) for d in (*controller, *nodes)]
    kills: list[Kill] = [*ours, *daemons]
    chance.shuffle(kills)
    return kills


def write_pool(folder: Path, *, members: int, seconds: float) -> None:
    """A training file with so many members that each work so long, and the options of the cluster."""
    (folder / "member.py").write_text(_MEMBER)
    models = [
        {
            "name": f"m{i}",
            "train_cmd": f"{{python}} member.py {{model_dir}} {seconds}",
            "outputs": {"model": "{model_dir}/model.txt"},
            "retries": 2,
            "backoff_s": 0.05,
        }
        for i in range(members)
    ]
    (folder / "train.json").write_text(json.dumps({"models": models}))
    (folder / "slurm.yaml").write_text("poll: 0.3s\nsettle: 1s\nsilence: 8s\nanswer: 20s\n")


def run_trial(
    folder: Path, kill: Kill, *, cluster: SlurmCluster, pool: tuple[int, float], seed: int
) -> tuple[Survival, list[Broken]]:
    """One kill over one fresh run; what happened, and the promises broken.

    Args:
        folder: Of this trial; does not exist.
        kill: The one kill.
        cluster: Runs, and runs again afterwards.
        pool: How many members, and how long each works in seconds.
        seed: Chooses the victim.
    """
    folder.mkdir(parents=True)
    members, seconds = pool
    write_pool(folder, members=members, seconds=seconds)
    argv = [sys.executable, "-m", "modelyard.cli.main", "train", "--config", "train.json", "--run-dir", "run"]
    argv += ["--manifest-out", "manifest.json", "--execute", "--backend", "slurm", "--yard", "yard"]
    manifest, run_dir = folder / "manifest.json", folder / "run"
    trial = Trial(
        argv=argv,
        cwd=folder,
        environment={
            **os.environ, **cluster.environment, "PYTHONWARNINGS": "ignore",
            "MODELYARD_SLURM": str(folder / "slurm.yaml"),
        },
        json_files=(manifest, run_dir / "manifest.json"),
    )  # fmt: skip
    with _killing(cluster, kill) as fired:
        own = Kill(after_s=_NEVER_S) if isinstance(kill, DaemonKill) else kill
        survival = survive(trial, own, seed=seed)
    survival.killed += len(fired)
    promises = {
        "done": "" if survival.done else f"statuses {survival.statuses}: {survival.stderr[-500:]}",
        "nothing alive": "" if not survival.left_alive else f"pids {survival.left_alive}",
        "queue is empty": _left_in_queue(cluster),
        "manifest is JSON": "; ".join(survival.broken_json[:3]),
        "no overlap": ", ".join(str(path) for path in run_dir.glob("models/*/overlap")),
        "no attempt started twice": _started_twice(run_dir),
        "journal verifies": "; ".join(verify_journal(folder / "yard" / "journal").faults),
        "one success each": _not_once(folder / "yard", members),
    }
    return survival, broken_promises(kill, promises)


@contextmanager
def _killing(cluster: SlurmCluster, kill: Kill) -> Iterator[Sequence[str]]:
    """Kill daemons while the body runs, and see to it that all of them run afterwards."""
    fired: list[str] = []
    ended = threading.Event()

    def act() -> None:
        if isinstance(kill, DaemonKill) and not ended.wait(kill.after_s):
            _fell(cluster, kill.daemon)
            fired.append(kill.daemon)
        while not ended.wait(_REGISTER_S):
            cluster.reconcile()

    beside = threading.Thread(target=act)
    beside.start()
    try:
        yield fired
    finally:
        ended.set()
        beside.join()
        cluster.reconcile()
        cluster.up()


def _fell(cluster: SlurmCluster, daemon: str) -> None:
    """Kill daemons of a kind, and start them again after a while."""
    victims = {"slurmctld": ["slurmctld"]}.get(daemon, cluster.nodes())
    for victim in victims:
        cluster.kill(victim)
    if daemon == "nodes":
        cluster.kill_step_daemons()
    time.sleep(_DOWN_S)
    for victim in victims:
        cluster.start(victim)


def _left_in_queue(cluster: SlurmCluster) -> str:
    deadline = time.monotonic() + _DRAIN_S
    while left := cluster.run("squeue", "-h", "-o", "%i %T %r %j").strip():
        if time.monotonic() > deadline:
            cluster.run("scancel", "--me", check=False)
            return left
        cluster.reconcile()
        time.sleep(0.5)
    return ""


def _started_twice(run_dir: Path) -> str:
    lines = [line for path in run_dir.glob("models/*/starts") for line in path.read_text().splitlines()]
    return ", ".join(key for key, times in Counter(lines).items() if times > 1)


def _not_once(yard: Path, members: int) -> str:
    """Which members do not have exactly one attempt that succeeded."""
    ends = (e.data for e in Journal(yard / "journal").read() if e.kind == "job.finished")
    count = Counter(data["step"] for data in ends if data["state"] == "SUCCEEDED")
    wrong = {f"train/m{i}": count[f"train/m{i}"] for i in range(members) if count[f"train/m{i}"] != 1}
    return str(wrong) if wrong else ""


def main() -> int:
    """Run the campaign and print what was found; status 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=60, help="kills at random instants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each member works")
    chosen = parser.parse_args()
    kills: list[Kill] = [
        *(failpoint_kills(later=(1,), only=SLURM_NAMES) if chosen.kills >= len(SLURM_NAMES) else ()),
        *mixed_kills(chosen.kills, within_s=1.0 + 2 * chosen.seconds, seed=chosen.seed),
    ]
    with running_cluster(Shape(silence_s=_SILENCE_S)) as cluster:
        trial = partial(_trial, cluster=cluster, pool=(chosen.members, chosen.seconds))
        return run_campaign(kills, trial, seed=chosen.seed)


def _trial(
    folder: Path, kill: Kill, seed: int, *, cluster: SlurmCluster, pool: tuple[int, float]
) -> tuple[Survival, list[Broken]]:
    return run_trial(folder, kill, cluster=cluster, pool=pool, seed=seed)


if __name__ == "__main__":
    sys.exit(main())
