"""Real training jobs, several at a time: modelyard beside TAO AutoML and Syne Tune, interleaved in one run.

    python benchmarks/tuning_jobs.py [--trials 40] [--workers 4] [--rounds 3] [--tao PYTHON] [--syne PYTHON]

Each tuner runs so many jobs of `tuning_digits.py`, all of the same cost, by random search (TAO, which has
none: by its Bayesian optimisation). The jobs have one interpreter, Syne Tune's if it is given. Told of each:
wall seconds; the most jobs at once; the median seconds from a job's end to the next one's start in its slot,
taken from the jobs' own clocks (the start of Python included); the tuner's own CPU seconds a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Nothing of it changes what a job costs.
SPACE = """
  lr: {low: 1e-4, high: 1.0, default: 1e-3}
  alpha: {low: 1e-6, high: 1.0, default: 1e-4, log: true}
"""
SYNE = """
import sys
from syne_tune import Tuner, StoppingCriterion
from syne_tune.backend import LocalBackend
from syne_tune.config_space import loguniform
from syne_tune.optimizer.baselines import RandomSearch
script, trials, workers, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
space = {"lr": loguniform(1e-4, 1.0), "alpha": loguniform(1e-6, 1.0)}
Tuner(trial_backend=LocalBackend(entry_point=script), n_workers=workers,
      scheduler=RandomSearch({**space, "syne": 1}, metrics=["val_loss"], random_seed=seed),
      stop_criterion=StoppingCriterion(max_num_trials_finished=trials), sleep_time=0.1,
      print_update_interval=1e9, save_tuner=False).run()
"""
TAO = """
import sys, json
from pathlib import Path
from tao_automl.runner import AutoMLRunner
from modelyard.testing.process_sdk import ProcessSdk
folder, trials, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
AutoMLRunner(ProcessSdk(folder / "jobs"), folder / "skill", poll_interval=0.2).run(
    workspace_path=str(folder / "work"),
    automl_settings={"algorithm": "bayesian", "metric": "val_loss", "automl_max_recommendations": trials,
                     "automl_max_concurrent": workers, "run_baseline": False, "run_final_evaluation": False})
"""


def main() -> None:
    """Run the rounds and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tao", help="an interpreter with nvidia-tao-automl")
    parser.add_argument("--syne", help="an interpreter with syne-tune, scikit-learn and pyyaml")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    peers = {"modelyard": ours, "modelyard, tpe": ours_tpe}
    if chosen.syne:
        peers["syne-tune"] = syne
    if chosen.tao:
        peers["tao-automl"] = tao
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    for number in range(chosen.rounds):
        for name, peer in peers.items():
            with tempfile.TemporaryDirectory(prefix="tuning-jobs-") as folder:
                rows[name].append(measured(peer, Path(folder), chosen, number))
            print(name, number, rows[name][-1], file=sys.stderr, flush=True)
    for name, found in rows.items():
        spread = {key: [round(each[key], 3) for each in found] for key in found[0]}
        middle = {key: round(statistics.median(values), 3) for key, values in spread.items()}
        print(f"{name:<16} {middle}   {spread['wall_s']}")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2))


def measured(peer: Any, folder: Path, chosen: Any, seed: int) -> dict[str, float]:
    """What one tuner took; the jobs' own CPU is told by themselves and taken off."""
    log = folder / "log.jsonl"
    sources = str(HERE.parent / "src")  # for the interpreters of peers
    environment = {
        **os.environ,
        "PYTHONPATH": sources,
        "TUNING_LOG": str(log),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    argv = peer(folder, chosen, seed)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise SystemExit(f"{argv}: status {ended.returncode}: {ended.stderr[-2000:]}")
    jobs = [json.loads(line) for line in log.read_text().splitlines()]
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if peer is syne:  # its jobs are its children; those of the others outlive it, and are not counted
        cpu_s -= sum(job["cpu_s"] for job in jobs)
    return {
        "wall_s": wall_s,
        "jobs": len(jobs),
        "most_at_once": most_at_once(jobs),
        "gap_s": gap_s(jobs, chosen.workers),
        "job_cpu_s": sum(job["cpu_s"] for job in jobs),
        "own_cpu_s_a_trial": cpu_s / len(jobs),
    }


def most_at_once(jobs: list[dict[str, float]]) -> int:
    """The most jobs that trained at one instant."""
    events = sorted([(job["begun"], 1) for job in jobs] + [(job["ended"], -1) for job in jobs])
    alive = most = 0
    for _, change in events:
        alive += change
        most = max(most, alive)
    return most


def gap_s(jobs: list[dict[str, float]], workers: int) -> float:
    """The median seconds from an end to the start that follows it: one start for each end."""
    begun = sorted(job["begun"] for job in jobs)[workers:]
    ended = sorted(job["ended"] for job in jobs)
    gaps = [start - end for start, end in zip(begun, ended, strict=False)]
    return statistics.median(gaps) if gaps else 0.0


def _job(chosen: Any) -> str:
    return f"{chosen.syne or sys.executable} {HERE / 'tuning_digits.py'}"


def _declared(folder: Path, chosen: Any, seed: int, algorithm: str) -> list[str]:
    lines = [
        "name: jobs", f'command: "{_job(chosen)} {{params}}"', "metric: val_loss",
        f"space:{SPACE.rstrip()}", f"algorithm: {algorithm}", f"trials: {chosen.trials}",
        f"parallel: {chosen.workers}", f"seed: {seed}",
    ]  # fmt: skip
    (folder / "tune.yaml").write_text("\n".join(lines) + "\n")
    return [sys.executable, "-m", "modelyard.cli.main", "tune", "run", "tune.yaml"]


def ours(folder: Path, chosen: Any, seed: int) -> list[str]:
    """`modelyard tune` with random search."""
    return _declared(folder, chosen, seed, "random")


def ours_tpe(folder: Path, chosen: Any, seed: int) -> list[str]:
    """`modelyard tune` with TPE."""
    return _declared(folder, chosen, seed, "tpe")


def syne(folder: Path, chosen: Any, seed: int) -> list[str]:
    """Syne Tune's local backend with random search."""
    (folder / "drive.py").write_text(SYNE)
    script = str(HERE / "tuning_digits.py")
    return [chosen.syne, "drive.py", script, str(chosen.trials), str(chosen.workers), str(seed)]


def tao(folder: Path, chosen: Any, seed: int) -> list[str]:
    """TAO's own runner over a small SDK of this machine's processes."""
    sys.path.insert(0, str(HERE.parent))
    from tests.unit.tuning.tao_bench import make_skill

    del seed  # it has none
    (folder / "drive.py").write_text(TAO)
    make_skill(
        folder / "skill",
        command=f"{_job(chosen)} --config_path {{config_path}}",
    )
    return [chosen.tao, "drive.py", str(folder), str(chosen.trials), str(chosen.workers)]


if __name__ == "__main__":
    main()
