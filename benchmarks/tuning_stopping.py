"""What stopping running jobs saves: ASHA and Hyperband beside the same configurations trained to the end.

    python benchmarks/tuning_stopping.py [--trials 40] [--seeds 5] [--parallel 2]

Real jobs of `tuning_digits.py` (27 epochs of four passes). `random` trains every configuration to its end;
`asha` and `hyperband` draw the same ones (their points are random search's, seed for seed) and stop running
jobs at epochs 1, 3 and 9. Told: CPU seconds of the jobs, by their own wrappers' records; the best
validation loss; and that best configuration's loss on five other seeds, trained to the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

#: Passes over the data in an epoch, so that an epoch is longer than the start of Python.
PASSES = 4
HERE = Path(__file__).resolve().parent
SPACE = """
  lr: {low: 1e-4, high: 1.0, default: 1e-3}
  layers: {low: 1, high: 3}
  units: {low: 8, high: 128, log: true, default: 32}
  alpha: {low: 1e-6, high: 1.0, default: 1e-4, log: true}
  batch_size: {choices: [16, 32, 64, 128], default: 32}
  solver: {choices: [adam, sgd]}
  momentum: {low: 0, high: 0.99, default: 0.9, when: {solver: sgd}}
  beta_1: {low: 0.5, high: 0.99, default: 0.9, when: {solver: adam}}
"""


def main() -> None:
    """Run every algorithm with every seed, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--algorithms", default="random,asha,hyperband")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    names = chosen.algorithms.split(",")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(chosen.seeds):
        for name in names:
            with tempfile.TemporaryDirectory(prefix="tuning-stopping-") as folder:
                rows[name].append(searched(Path(folder), name, seed, chosen))
            print(name, seed, rows[name][-1], file=sys.stderr, flush=True)
    for name in names:
        middle = {k: round(statistics.median(row[k] for row in rows[name]), 4) for k in rows[name][0]}
        print(f"{name:<10} {middle}   CPU s: {[round(row['cpu_s']) for row in rows[name]]}")
    for name in names[1:]:
        pairs = list(zip(rows[names[0]], rows[name], strict=True))
        share = statistics.median(other["cpu_s"] / whole["cpu_s"] for whole, other in pairs)
        gaps = [round(other["confirmed"] - whole["confirmed"], 4) for whole, other in pairs]
        print(
            f"{name} took {share:.2f} of the CPU seconds of {names[0]}; loss on other seeds {gaps} above its"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2))


def searched(folder: Path, algorithm: str, seed: int, chosen: argparse.Namespace) -> dict[str, float]:
    """One search: what its jobs cost, and what it found."""
    rungs = "" if algorithm == "random" else "rungs: {low: 1, high: 27, eta: 3}"
    command = f"{{python}} {HERE / 'tuning_digits.py'} {{params}} --passes {PASSES}"
    lines = [
        "name: stopping", f'command: "{command}"', "metric: val_loss",
        f"space:{SPACE.rstrip()}", f"algorithm: {algorithm}", f"trials: {chosen.trials}", rungs,
        f"parallel: {chosen.parallel}", f"seed: {100 + seed}", "poll: 0.1s",
    ]  # fmt: skip
    (folder / "tune.yaml").write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    said = subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", "tune", "run", "tune.yaml", "--json"],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    record = json.loads(said.stdout)
    ends = [json.loads(path.read_text()) for path in folder.glob(".modelyard/runs/stopping/jobs/*/exit.json")]
    return {
        "cpu_s": sum(end["cpu_s"] for end in ends),
        "complete": record["counts"]["COMPLETE"],
        "stopped": record["counts"]["PRUNED"],
        "best": record["best"]["values"][0],
        "confirmed": confirmed(record["best"]["assignments"]),
    }


def confirmed(assignments: dict[str, float]) -> float:
    """The mean loss of a configuration over five other seeds."""
    from tuning_digits import EPOCHS, curve

    return statistics.fmean(
        list(curve(assignments, epochs=EPOCHS, seed=1000 + s, passes=PASSES))[-1] for s in range(5)
    )


if __name__ == "__main__":
    main()
