"""Planning: a pool of 10,000 models read, checked and rendered; nothing is run.

    python benchmarks/planning.py [--models 10000] [--rounds 3]

Each round is a new process: it reads the file, checks every command against this machine, orders
the plan, renders every request, and digests the plan. There is no peer that checks; the original
launcher only prints.
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

ROUND = """
import json, os, resource, sys, time
begun = time.perf_counter()
from pathlib import Path
from modelyard.runs.execution import ExecutionOptions, open_backend
from modelyard.training.train import prepare_training
options = ExecutionOptions(environment=dict(os.environ))
prepared = prepare_training(Path(sys.argv[1]), Path(sys.argv[2]), None, options)
backend = open_backend(options, Path(sys.argv[2]) / "jobs")
requests = [backend.render(step) for step in prepared.plan.steps]
digest = prepared.plan.digest
wall_s = time.perf_counter() - begun
usage = resource.getrusage(resource.RUSAGE_SELF)
assert not prepared.lacking and len(requests) == int(sys.argv[3])
cpu_s = usage.ru_utime + usage.ru_stime
print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "peak_mib": usage.ru_maxrss / 1024}))
"""


def main() -> None:
    """Measure and print one JSON value."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
        root = Path(folder)
        (root / "train.csv").write_text("1\n")
        (root / "main.py").write_text("pass\n")
        command = "{python_bin} main.py --data {dataset} --save {model_dir} --horizon {horizon} --seed {seed}"
        models = [{"name": f"m{i}", "train_cmd": command} for i in range(chosen.models)]
        config = root / "train.json"
        config.write_text(
            json.dumps({"dataset": "train.csv", "context": {"python_bin": sys.executable}, "models": models})
        )
        argv = [sys.executable, "-c", ROUND, str(config), str(root / "run"), str(chosen.models)]
        rounds = [
            json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
            for _ in range(chosen.rounds)
        ]
    medians = {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]}
    span = [round(f(r["wall_s"] for r in rounds), 3) for f in (min, max)]
    print(
        json.dumps(
            {"models": chosen.models, **medians, "wall_s_span": span, "load": os.getloadavg()[0]}, indent=2
        )
    )


if __name__ == "__main__":
    main()
