"""Searches with several trials at once, on functions whose lowest value is known.

    OMP_NUM_THREADS=1 python benchmarks/tuning_parallel.py [--cases branin,hartmann6] [--seeds 10]
        [--parallel 4] [--algorithms random,tpe,bayesian,bfbo] [--against bayesian] [--runs runs.jsonl]

The trials end in an order that is drawn from the seed, and a new one begins when one has ended, so that each
is proposed while three others run; the default configuration is the first. Regret: the best value of a run
minus the lowest there is. `alike` counts trials within a thousandth of another's place, as a share of each
range. A difference is that of the decimal logarithms of two regrets with one seed; its interval is Student's,
95 %.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from pathlib import Path
from typing import Any

from modelyard.core.plugins import load_plugin
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.scaling import place
from tuning_race import OPTIONS, Runs, coded, decoded, interval, space
from tuning_race_cases import CASES, Case


def searched(name: str, case: Case, seed: int, parallel: int) -> dict[str, Any]:
    """One run."""
    begun = time.process_time()
    axes = space(case).dimensions
    settings = SearcherSettings(
        dimensions=axes, directions=("minimize",), seed=seed, parallel=parallel,
        default=coded(case, case.default), options=OPTIONS.get(name, ()),
    )  # fmt: skip
    how = Simulation(
        curve=lambda point, _step: case.function(decoded(case, point)),
        parallel=parallel, seed=seed, default=settings.default,
    )  # fmt: skip
    searcher = load_plugin("modelyard.tuners", name.removesuffix("-optuna"))(settings)
    trials = SimulatedStudy(searcher, how).run(trials=case.trials)
    cpu_s = (time.process_time() - begun) / case.trials
    at = [
        [trial.point[a.name] if a.kind == "choice" else place(a, trial.point[a.name]) for a in axes]
        for trial in trials
    ]
    alike = sum(any(near(one, other) for other in at[:i]) for i, one in enumerate(at))
    return {"regret": min(t.value for t in trials) - case.lowest, "alike": alike, "cpu_s": cpu_s}


def near(one: list[Any], other: list[Any]) -> bool:
    """Whether two places are as good as the same."""
    return all(a == b if isinstance(a, str) else abs(a - b) < 1e-3 for a, b in zip(one, other, strict=True))


def read_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default="branin,hartmann6")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--algorithms", default="random,tpe,bayesian,bfbo")
    parser.add_argument("--against", default="bayesian")
    parser.add_argument("--runs", type=Path, help="keeps every run, and takes those that are there")
    return parser.parse_args()


def main() -> None:
    """Run all, and print a table."""
    asked = read_arguments()
    kept, names = Runs(asked.runs), asked.algorithms.split(",")
    for case in (CASES[name] for name in asked.cases.split(",")):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for seed in range(asked.seeds):
            for name in names:
                made = functools.partial(searched, name, case, seed, asked.parallel)
                runs[name].append(kept.run((case.name, name, seed, asked.parallel), made))
        print(f"{case.name}, {case.trials} trials, {asked.parallel} at once, {asked.seeds} seeds")
        for name in names:
            print(f"  {name:16} {told(runs, name, asked.against)}", flush=True)


def told(runs: dict[str, list[dict[str, Any]]], name: str, against: str) -> str:
    """A row of the table."""
    regrets = [run["regret"] for run in runs[name]]
    apart = ""
    if against in runs:
        mean, low, high = interval(regrets, [run["regret"] for run in runs[against]])
        apart = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    alike = sum(run["alike"] for run in runs[name])
    cpu_s = statistics.median(run["cpu_s"] for run in runs[name])
    return f"{statistics.median(regrets):.5f}  {apart:24} {alike} alike, {cpu_s:.3f} CPU s a trial"


if __name__ == "__main__":
    main()
