"""Launching commands: modelyard's local backend beside `xargs -P 2`, interleaved in one run.

    python benchmarks/jobs.py [--steps 500] [--rounds 3]

1. `sleep 0.2` so many times: wall seconds of `modelyard train --execute --jobs 2` and of xargs.
2. `true` so many times: CPU milliseconds a step (ours and our children's), forced writes a step
   (counted by strace where it is installed).
3. Memory: the driver's peak for 250, 500 and 1,000 steps of `true`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run of a command took."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def measure(argv: list[str]) -> Cost:
    """Run a command to its end; its own and its descendants' CPU, its own peak memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begun
        said.seek(0)
        if status != 0:
            raise SystemExit(f"{argv}: wait status {status}: {said.read().decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return Cost(wall_s=wall_s, cpu_s=cpu_s, peak_mib=usage.ru_maxrss / 1024)


def train(folder: Path, command: str, steps: int) -> list[str]:
    """The command line that runs `command` so many times in a fresh run."""
    folder.mkdir(parents=True)
    config = folder / "train.json"
    config.write_text(json.dumps({"models": [{"name": f"m{i}", "train_cmd": command} for i in range(steps)]}))
    argv = [sys.executable, "-m", "modelyard.cli.main", "train", "--config", str(config), "--execute"]
    return [*argv, "--jobs", "2", "--run-dir", str(folder / "run"), "--yard", str(folder / "yard")]


def xargs(command: str, steps: int) -> list[str]:
    """The peer: the same commands, two at a time."""
    return ["sh", "-c", f"seq {steps} | xargs -P 2 -I{{}} {command}"]


def sleeping(root: Path, steps: int, rounds: int) -> dict[str, object]:
    """Wall seconds of both, in turn."""
    ours, peer = [], []
    for number in range(rounds):
        ours.append(measure(train(root / f"sleep-{number}", "sleep 0.2", steps)))
        peer.append(measure(xargs("sleep 0.2", steps)))
    ratios = [a.wall_s / b.wall_s for a, b in zip(ours, peer, strict=True)]
    return {
        "modelyard_wall_s": spread([c.wall_s for c in ours]),
        "xargs_wall_s": spread([c.wall_s for c in peer]),
        "ratio": spread(ratios),
        "modelyard_cpu_s": spread([c.cpu_s for c in ours]),
        "xargs_cpu_s": spread([c.cpu_s for c in peer]),
    }


def nothing(root: Path, steps: int, rounds: int) -> dict[str, object]:
    """CPU and forced writes of steps that do nothing."""
    ours = [measure(train(root / f"true-{number}", "true", steps)) for number in range(rounds)]
    peer = [measure(xargs("true", steps)) for _ in range(rounds)]
    result: dict[str, object] = {
        "modelyard_cpu_ms_per_step": spread([1000 * c.cpu_s / steps for c in ours]),
        "xargs_cpu_ms_per_step": spread([1000 * c.cpu_s / steps for c in peer]),
        "modelyard_wall_ms_per_step": spread([1000 * c.wall_s / steps for c in ours]),
    }
    if shutil.which("strace"):
        counts = root / "strace.txt"
        traced = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(counts)]
        measure([*traced, *train(root / "traced", "true", steps)])
        calls = sum(
            int(m[1])
            for m in re.finditer(
                r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*sync$", counts.read_text(), re.MULTILINE
            )
        )
        result["fsyncs_per_step"] = round(calls / steps, 2)
    return result


def memory(root: Path) -> dict[int, float]:
    """The driver's peak MiB by number of steps."""
    sizes = (250, 500, 1000)
    return {n: round(measure(train(root / f"memory-{n}", "true", n)).peak_mib, 1) for n in sizes}


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def main() -> None:
    """Measure and print one JSON value."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        root = Path(folder)
        version = subprocess.run(["xargs", "--version"], capture_output=True, text=True, check=True).stdout
        print(
            json.dumps(
                {
                    "peer": version.splitlines()[0],
                    "steps": chosen.steps,
                    "load_before": os.getloadavg()[0],
                    "sleep_0.2": sleeping(root, chosen.steps, chosen.rounds),
                    "true": nothing(root, chosen.steps, chosen.rounds),
                    "peak_mib_by_steps": memory(root),
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
