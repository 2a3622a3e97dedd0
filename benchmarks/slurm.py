"""Submitting to Slurm: modelyard's backend beside bare sbatch, interleaved, on a real cluster.

    python benchmarks/slurm.py [--jobs 30] [--array 100] [--rounds 3] [--seed 0]

1. One job: seconds from the call to the first line of the command, and the call alone.
2. Many alike jobs: seconds of submitting them, one by one and as an array, and until the last has ended.
3. One look at so many jobs in the queue: milliseconds, beside `squeue` alone.

The cluster schedules once a second, so that the start of a job is drawn from one second; the pauses between
submissions are random, the same for both.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from modelyard.jobs.backend import BackendSettings
from modelyard.jobs.backends.slurm import SlurmBackend
from modelyard.jobs.backends.slurm_options import SlurmOptions
from modelyard.jobs.backends.slurm_states import QUEUE_FORMAT
from modelyard.jobs.step import Step
from modelyard.testing.slurm_cluster import SlurmCluster, running_cluster

_NOTE = "date +%s.%N > {path}.tmp; mv {path}.tmp {path}"
_LIMIT_S = 300.0


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, looked at often."""
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(0.01)


def open_backend(folder: Path, cluster: SlurmCluster, options: SlurmOptions) -> SlurmBackend:
    """Our backend on the cluster."""
    environment = {**os.environ, **cluster.environment}
    return SlurmBackend(BackendSettings(jobs_dir=folder / "jobs", environment=environment), options=options)


def sbatch(cluster: SlurmCluster, script: Path, *words: str) -> None:
    """The peer: what a person types."""
    environment = {**os.environ, **cluster.environment}
    subprocess.run(
        ["sbatch", "--parsable", "--output=/dev/null", *words, str(script)],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def single(root: Path, cluster: SlurmCluster, jobs: int, chance: random.Random) -> dict[str, object]:
    """From the call to the first line, one job at a time, in turn."""
    backend = open_backend(root, cluster, SlurmOptions())
    took: dict[str, list[float]] = {name: [] for name in ("ours", "sbatch", "ours_call", "sbatch_call")}
    for number in range(jobs):
        for who in ("ours", "sbatch") if number % 2 else ("sbatch", "ours"):
            noted = root / f"{who}-{number}"
            text = _NOTE.format(path=noted)
            script = root / f"{who}-{number}.sh"
            script.write_text(f"#!/bin/sh\n{text}\n")
            time.sleep(chance.uniform(0.0, 1.0))
            begun, clock = time.perf_counter(), time.time()
            if who == "ours":
                step = Step(name=f"one-{number}", argv=(text,), shell=True, cwd=str(root))
                backend.submit(step, f"one-{number}")
            else:
                sbatch(cluster, script)
            took[f"{who}_call"].append(time.perf_counter() - begun)
            wait_for(noted.exists)
            took[who].append(float(noted.read_text()) - clock)
    return {name: spread(values) for name, values in took.items()}


def many(root: Path, cluster: SlurmCluster, count: int, rounds: int) -> dict[str, object]:
    """So many jobs that do nothing, in turn: submitted one by one, and as an array."""
    script = root / "true.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        for array in (False, True):
            way = "array" if array else "one_by_one"
            for who, seconds in (
                ("sbatch", bare(cluster, script, count, array=array)),
                ("ours", ours(root / f"{way}-{number}", cluster, count, array=array)),
            ):
                for what, value in seconds.items():
                    took.setdefault(f"{who}_{way}_{what}", []).append(value)
    return {name: spread(values) for name, values in took.items()}


def bare(cluster: SlurmCluster, script: Path, count: int, *, array: bool) -> dict[str, float]:
    """Seconds of submitting by sbatch, and until the queue is empty."""
    begun = time.perf_counter()
    if array:
        sbatch(cluster, script, f"--array=0-{count - 1}")
    else:
        for _ in range(count):
            sbatch(cluster, script)
    submitted = time.perf_counter() - begun
    wait_for(lambda: not cluster.run("squeue", "-h").strip())
    return {"submit_s": submitted, "done_s": time.perf_counter() - begun}


def ours(root: Path, cluster: SlurmCluster, count: int, *, array: bool) -> dict[str, float]:
    """The same by our backend, until the last report is final."""
    root.mkdir()
    backend = open_backend(root, cluster, SlurmOptions(poll_s=1.0))
    steps = [Step(name=f"{root.name}-{i}", argv=("true",), cwd=str(root)) for i in range(count)]
    begun, cpu = time.perf_counter(), time.process_time()
    with backend.gathered() if array else nullcontext():
        keys = [backend.submit(step, step.name) for step in steps]
    submitted = time.perf_counter() - begun
    while not all(report.state.final for report in backend.poll(keys).values()):
        backend.wait(0.2)
    told = {"submit_s": submitted, "done_s": time.perf_counter() - begun}
    wait_for(lambda: not cluster.run("squeue", "-h").strip())
    return {**told, "cpu_s": time.process_time() - cpu}


def looking(root: Path, cluster: SlurmCluster, count: int) -> Mapping[str, object]:
    """One question for so many jobs that wait, beside squeue alone."""
    backend = open_backend(root, cluster, SlurmOptions(poll_s=0.0))
    steps = [Step(name=f"w-{i}", argv=("sleep", "600"), cwd=str(root)) for i in range(count)]
    with backend.gathered():
        keys = [backend.submit(step, step.name) for step in steps]
    ours, alone = [], []
    for _ in range(10):
        begun = time.perf_counter()
        backend.poll(keys)
        ours.append(1000 * (time.perf_counter() - begun))
        begun = time.perf_counter()
        cluster.run("squeue", "--me", "-h", "-r", "-t", "all", "-o", QUEUE_FORMAT)
        alone.append(1000 * (time.perf_counter() - begun))
    backend.cancel(keys)
    wait_for(lambda: all(report.state.final for report in backend.poll(keys).values()))
    return {"poll_ms": spread(ours), "squeue_ms": spread(alone)}


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    told = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in told.items()}


def main() -> None:
    """Measure and print one JSON value."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--array", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of the many jobs")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder, running_cluster() as cluster:
        root = Path(folder)
        result = {
            "peer": cluster.run("sbatch", "--version").strip(),
            "load_before": os.getloadavg()[0],
            "one_job_s": single(root, cluster, chosen.jobs, random.Random(chosen.seed)),
            f"{chosen.array}_jobs": many(root, cluster, chosen.array, chosen.rounds),
            f"look_at_{chosen.array}": looking(root, cluster, chosen.array),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
