"""Searches with two objectives beside peers: how much their fronts dominate after the same number of trials.

    OMP_NUM_THREADS=1 python benchmarks/tuning_fronts.py [--trials 200] [--seeds 10]
        [--algorithms random,tpe,nsga2,optuna-nsga2,pymoo-nsga2] [--python pymoo-nsga2=PATH] [--json out.json]
    OMP_NUM_THREADS=1 python benchmarks/tuning_fronts.py --trials 40 --seeds 5 \\
        --algorithms bayesian,bayesian-optuna,optuna-gp,optuna-botorch,nsga2,tpe --python optuna-botorch=PATH

The problem is the first of Zitzler, Deb and Thiele (2000) in six variables. The dominated area lies below the
corner (1.1, 7), of which the front dominates 7.367. `optuna-nsga2` is Optuna's sampler through its own study
with the same population and crossover; pymoo and Optuna's integration of BoTorch run in the interpreters that
`--python` names. `bayesian-optuna` is `bayesian` without BoTorch, and `optuna-gp` the sampler behind it by
Optuna's own study. CPU seconds are those of a run divided by its trials.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

VARIABLES, CORNER, POPULATION = 6, (1.1, 7.0), 20
OPTIONS = {"bayesian": (("engine", "botorch"),), "bayesian-optuna": (("engine", "optuna"),)}


def zdt1(x: list[float]) -> tuple[float, float]:
    """Both are to be low."""
    rest = 1 + 9 * sum(x[1:]) / (len(x) - 1)
    return x[0], rest * (1 - (x[0] / rest) ** 0.5)


def dominated(values: list[tuple[float, float]]) -> float:
    """The area below the corner that some value dominates."""
    total, last = 0.0, CORNER[1]
    for f, g in sorted(values):
        if f < CORNER[0] and g < last:
            total += (CORNER[0] - f) * (last - g)
            last = g
    return total


def ours(name: str, seed: int, trials: int) -> float:
    """A searcher of modelyard."""
    from modelyard.core.plugins import load_plugin
    from modelyard.tuning.dimensions import Dimension
    from modelyard.tuning.searcher import SearcherSettings
    from modelyard.tuning.trial import Trial, TrialState

    axes = tuple(Dimension(name=f"x{i}", kind="float", low=0.0, high=1.0) for i in range(VARIABLES))
    settings = SearcherSettings(dimensions=axes, directions=("minimize", "minimize"), seed=seed)
    settings = replace(settings, options=OPTIONS.get(name, ()))
    searcher, made = load_plugin("modelyard.tuners", name.removesuffix("-optuna"))(settings), []
    for number in range(trials):
        asked = searcher.propose(made, number)
        values = zdt1([asked.point[axis.name] for axis in axes])
        made.append(
            Trial(
                number=number, point=asked.point, source=name, notes=asked.notes,
                state=TrialState.COMPLETE, values=values,
            )
        )  # fmt: skip
    return dominated([trial.values for trial in made])


def optuna_nsga2(seed: int, trials: int) -> float:
    """Optuna's NSGA-II."""
    import optuna
    from optuna.samplers.nsgaii import SBXCrossover

    warnings.simplefilter("ignore")
    return _optuna(
        optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION, crossover=SBXCrossover()), trials
    )


def optuna_gp(seed: int, trials: int) -> float:
    """Optuna's Gaussian process with its defaults: ten random trials first."""
    import optuna

    warnings.simplefilter("ignore")
    return _optuna(optuna.samplers.GPSampler(seed=seed), trials)


def optuna_botorch(seed: int, trials: int) -> float:
    """BoTorch by Optuna's integration with its defaults: ten random trials first, then qEHVI."""
    warnings.simplefilter("ignore")
    from optuna_integration import BoTorchSampler

    return _optuna(BoTorchSampler(seed=seed), trials)


def _optuna(sampler: Any, trials: int) -> float:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    study.optimize(
        lambda trial: zdt1([trial.suggest_float(f"x{i}", 0, 1) for i in range(VARIABLES)]), n_trials=trials
    )
    return dominated([tuple(trial.values) for trial in study.trials])


def pymoo_nsga2(seed: int, trials: int) -> float:
    """pymoo's with its defaults but for the population."""
    import numpy as np
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.optimize import minimize

    values = []

    class Problem(ElementwiseProblem):
        def _evaluate(self, x, out, *_, **__):  # type: ignore[no-untyped-def]
            values.append(zdt1(list(map(float, x))))
            out["F"] = np.array(values[-1])

    problem = Problem(n_var=VARIABLES, n_obj=2, xl=0.0, xu=1.0)
    minimize(problem, NSGA2(pop_size=POPULATION), ("n_eval", trials), seed=seed)
    return dominated(values[:trials])


PEERS = {
    "optuna-nsga2": optuna_nsga2, "optuna-gp": optuna_gp, "optuna-botorch": optuna_botorch,
    "pymoo-nsga2": pymoo_nsga2,
}  # fmt: skip


def elsewhere(name: str, seed: int, trials: int, python: str) -> tuple[float, float]:
    """The area and the CPU seconds of a peer in a process of its own."""
    command = [python, __file__, "--one", name, "--first", str(seed), "--trials", str(trials)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(told[-2]), float(told[-1])


def timed(run: Callable[..., float], *given: Any) -> tuple[float, float]:
    """The area and the CPU seconds of a run."""
    begun = time.process_time()
    return run(*given), time.process_time() - begun


def main() -> None:
    """Run all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--algorithms", default="random,tpe,nsga2,optuna-nsga2")
    parser.add_argument("--python", default="", help="name=interpreter of peers, separated by commas")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(*timed(PEERS[asked.one], asked.first, asked.trials))
        return
    pythons = dict(pair.split("=", 1) for pair in asked.python.split(",") if pair)
    rows = []
    for name in asked.algorithms.split(","):
        runs = [
            elsewhere(name, seed, asked.trials, pythons.get(name, sys.executable))
            if name in PEERS
            else timed(ours, name, seed, asked.trials)
            for seed in range(asked.seeds)
        ]
        areas = [area for area, _ in runs]
        cpu_s = statistics.median(spent for _, spent in runs) / asked.trials
        rows.append({"algorithm": name, "areas": areas, "median": statistics.median(areas), "cpu_s": cpu_s})
        reach = f"[{min(areas):.3f}, {max(areas):.3f}]"
        print(f"{name:15} {rows[-1]['median']:.3f}  {reach}  {cpu_s:.3f} CPU s a trial", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({"trials": asked.trials, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
