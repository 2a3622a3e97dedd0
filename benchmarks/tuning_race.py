"""A race of optimisers on functions whose lowest value is known: ours beside peers, with the same seeds.

    OMP_NUM_THREADS=1 python benchmarks/tuning_race.py [--cases branin,hartmann6,mixed] [--seeds 20]
        [--algorithms botorch,tpe,optuna-tpe,ax,smac,tao] [--python ax=PATH,tao=PATH]
        [--against optuna-tpe] [--json out.json]

Ours are the names of the group `modelyard.tuners`, asked as a study asks them, the default configuration
first; `bayesian-optuna` is `bayesian` without BoTorch. Peers are asked by their own interfaces in processes
of their own (`tuning_race_peers.py`), with the interpreter that `--python` names. Regret: the best value
of a run minus the lowest there is. A difference is that of the decimal logarithms of two regrets with one
seed; its interval is Student's, 95 %. CPU seconds are those of a whole run, imports among them where it has
a process of its own, divided by its trials.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scipy import stats

from modelyard.core.plugins import load_plugin
from modelyard.tuning.dimensions import Dimension, Point
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.trial import Trial, TrialState
from tuning_race_cases import CASES, Axis, Case
from tuning_race_peers import PEERS

OPTIONS = {"bayesian-optuna": (("engine", "optuna"),), "bayesian": (("engine", "botorch"),)}
FLOOR = 1e-9  # a regret below this counts as this


def dimension(axis: Axis) -> Dimension:
    """A parameter of the race as modelyard has it."""
    choices = tuple(json.dumps(choice) for choice in axis.choices)
    return Dimension(
        name=axis.name, kind=axis.kind, low=axis.low, high=axis.high, log=axis.log, choices=choices
    )  # type: ignore[arg-type]


def coded(case: Case, values: Any) -> Point:
    """Values as a point: choices as their JSON."""
    kinds = {axis.name: axis.kind for axis in case.axes}
    return {n: json.dumps(v) if kinds[n] == "choice" else v for n, v in values.items()}


def decoded(case: Case, point: Point) -> dict[str, Any]:
    """A point as values."""
    kinds = {axis.name: axis.kind for axis in case.axes}
    return {n: json.loads(str(v)) if kinds[n] == "choice" else v for n, v in point.items()}


def ours(name: str, case: Case, seed: int) -> dict[str, Any]:
    """One run of a searcher, in this process."""
    begun = time.process_time()
    settings = SearcherSettings(
        dimensions=tuple(dimension(axis) for axis in case.axes), directions=("minimize",), seed=seed,
        default=coded(case, case.default), options=OPTIONS.get(name, ()),
    )  # fmt: skip
    searcher = load_plugin("modelyard.tuners", name.removesuffix("-optuna"))(settings)
    trials: list[Trial] = []
    for number in range(case.trials):
        point = settings.default if number == 0 else searcher.propose(trials, number).point
        value = case.function(decoded(case, point))
        trials.append(
            Trial(number=number, point=point, source=name, state=TrialState.COMPLETE, values=(value,))
        )
    return {
        "values": [trial.value for trial in trials],
        "cpu_s": (time.process_time() - begun) / case.trials,
        "peer": "modelyard",
    }


def peer(
    name: str, case: str, seed: int, python: str, *, script: str = "tuning_race_peers.py"
) -> dict[str, Any]:
    """One run of a peer, in a process of its own."""
    argv = [python, str(Path(__file__).with_name(script)), name, case, str(seed)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{name} on {case}: {ran.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def interval(mine: list[float], other: list[float]) -> tuple[float, float, float]:
    """The mean difference of the logarithms of paired regrets, and its 95 % interval."""
    pairs = zip(mine, other, strict=True)
    apart = [math.log10(max(a, FLOOR)) - math.log10(max(b, FLOOR)) for a, b in pairs]
    mean = statistics.mean(apart)
    if len(apart) < 2 or len(set(apart)) == 1:
        return mean, mean, mean
    half = stats.t.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / math.sqrt(len(apart))
    return mean, mean - half, mean + half


def read_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--algorithms", default="random,tpe,cmaes,bayesian-optuna,botorch,optuna-tpe")
    parser.add_argument("--python", default="", help="name=interpreter of peers, separated by commas")
    parser.add_argument("--against", default="optuna-tpe")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=Path, help="keeps every run, and takes those that are there")
    return parser.parse_args()


class Runs:
    """The runs by case, algorithm and seed, one JSON line each in a file, if there is to be one."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._known = path, {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            record = json.loads(line)
            self._known[tuple(record["key"])] = record["run"]

    def run(self, name: str, case: Case, seed: int, python: str) -> dict[str, Any]:
        """One run, made unless it is there."""
        key = (case.name, name, seed)
        if key not in self._known:
            run = peer(name, case.name, seed, python) if name in PEERS else ours(name, case, seed)
            self._known[key] = run
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"key": key, "run": run}) + "\n")
        return self._known[key]


def main() -> None:
    """Run the race and print its table."""
    asked = read_arguments()
    pythons = dict(pair.split("=", 1) for pair in asked.python.split(",") if pair)
    names, rows = asked.algorithms.split(","), []
    kept = Runs(asked.runs)
    for case in (CASES[name] for name in asked.cases.split(",")):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for seed in range(asked.seeds):
            for name in names:
                runs[name].append(kept.run(name, case, seed, pythons.get(name, sys.executable)))
            print(f"{case.name}: seed {seed} done", file=sys.stderr)
        regrets = {name: [min(run["values"]) - case.lowest for run in runs[name]] for name in names}
        for name in names:
            row = {
                "case": case.name, "algorithm": name, "seeds": asked.seeds, "trials": case.trials,
                "median_regret": statistics.median(regrets[name]), "regrets": regrets[name],
                "cpu_s": statistics.median(run["cpu_s"] for run in runs[name]), "peer": runs[name][0]["peer"],
                "values": [run["values"] for run in runs[name]],
            }  # fmt: skip
            if asked.against in regrets:
                row["log10_against"] = interval(regrets[name], regrets[asked.against])
            rows.append(row)
            mean, low, high = row.get("log10_against", (math.nan,) * 3)
            print(
                f"{case.name:10} {name:16} median {row['median_regret']:.6f}  log10 against "
                f"{asked.against} {mean:+.2f} [{low:+.2f}, {high:+.2f}]  {row['cpu_s']:.4f} CPU s a trial",
                flush=True,
            )
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
