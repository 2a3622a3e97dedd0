"""What an evaluation costs beside its models: python benchmarks/evaluating.py [--questions 5000] [--rounds 3]

A server of ours that adds (modelyard.testing.openai_server, on the same machine) is asked sums by `modelyard
evaluate`, in a process of its own: CPU seconds of the asking process a question, and wall; then the same
command again, which finds every answer kept. Then programs a second of the code scorer, one process each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from modelyard.results.examples import Example
from modelyard.results.scorers import load_scorer
from modelyard.testing.openai_server import fake_server


def timed(argv: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        argv, cwd=folder, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def evaluation(
    folder: Path, questions: int, parallel: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Wall and CPU of asking all, and of asking again."""
    rows = ({"id": f"q{i}", "prompt": f"What is {i} + 7?", "answers": [str(i + 7)], "scorer": "numeric"}
            for i in range(questions))  # fmt: skip
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = [sys.executable, "-m", "modelyard.cli.main", "evaluate", "yard.yaml", "--set", "set.jsonl"]
    with fake_server(folder / "log.jsonl") as server:
        pool = [{"name": "adder", "endpoint": server.endpoint, "parallel": parallel}]
        (folder / "yard.yaml").write_text(json.dumps({"name": "speed", "pool": pool}))
        return timed(argv, folder), timed(argv, folder)


def programs(count: int) -> float:
    """Seconds a program, wall."""
    example = Example(id="e", prompt="?", answers=("assert double(21) == 42",), scorer="code")
    begun = time.monotonic()
    for _ in range(count):
        assert load_scorer("code").score(example, "def double(x): return 2 * x").value == 1.0
    return (time.monotonic() - begun) / count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    for parallel in (1, 8):
        asked, again = [], []
        for _ in range(told.rounds):
            with tempfile.TemporaryDirectory() as folder:
                first, second = evaluation(Path(folder), told.questions, parallel)
            asked.append(first)
            again.append(second)
        for name, rows in (("asked", asked), ("again", again)):
            wall, cpu = (sorted(column) for column in zip(*rows, strict=True))
            print(
                f"{told.questions} questions, parallel {parallel}, {name}: wall {median(wall):.2f} s "
                f"({wall[0]:.2f} to {wall[-1]:.2f}), CPU {median(cpu):.2f} s "
                f"({cpu[0]:.2f} to {cpu[-1]:.2f}), {1000 * median(cpu) / told.questions:.2f} ms CPU each"
            )
    print(f"a program scored: {1000 * median(programs(20) for _ in range(told.rounds)):.1f} ms")


if __name__ == "__main__":
    main()
