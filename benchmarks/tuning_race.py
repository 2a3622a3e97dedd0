"""A race of optimisers on functions whose lowest value is known, and on trainings: ours beside peers.

    OMP_NUM_THREADS=1 python benchmarks/tuning_race.py [--cases branin,hartmann6,mixed,classifier,network]
        [--seeds 20] [--algorithms botorch,tpe,optuna-tpe,ax,smac,tao] [--python ax=PATH,tao=PATH]
        [--against optuna-tpe,botorch] [--runs runs.jsonl] [--json out.json]

Ours are the names of the group `modelyard.tuners`, asked as a study asks them, the default configuration
first; `bayesian-optuna` is `bayesian` without BoTorch. Peers are asked by their own interfaces in processes
of their own (`tuning_race_peers.py`), with the interpreter that `--python` names; what they would train is
trained here, for all with the same versions. Regret: the best value of a run minus the lowest there is; of
the trainings (`tuning_race_jobs.py`) nobody knows that, and the lowest error of any run here or in `--runs`
counts as it, and no regret as half a digit of the 1,197. A difference is that of the decimal logarithms of
two regrets with one seed; its interval is Student's, 95 %. CPU seconds are those of a whole run, imports
among them where it has a process of its own, without the trainings, divided by its trials.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scipy import stats

from modelyard.core.plugins import load_plugin
from modelyard.tuning.dimensions import Dimension, Point
from modelyard.tuning.searcher import Host, SearcherSettings
from modelyard.tuning.spaces.domains import Choices
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Condition, Parameter, Space
from modelyard.tuning.trial import Trial, TrialState
from tuning_race_cases import CASES, Axis, Case
from tuning_race_jobs import TRAININGS
from tuning_race_peers import PEERS

OPTIONS = {"bayesian-optuna": (("engine", "optuna"),), "bayesian": (("engine", "botorch"),)}


def value(case: Case, point: Mapping[str, Any]) -> float:
    """The value at what counts of a point; a training is made once."""
    counting = case.active({**case.default, **point})
    return _trained(case.name, tuple(counting.items())) if case.function is None else case.function(counting)


@functools.cache
def _trained(name: str, values: tuple[tuple[str, Any], ...]) -> float:
    return TRAININGS[name](dict(values))


def domain(axis: Axis) -> Choices | Range:
    """The values of a parameter."""
    if axis.kind == "choice":
        return Choices(options=axis.choices)
    return Range(low=axis.low, high=axis.high, log=axis.log, integer=axis.kind == "int")


def dimension(axis: Axis) -> Dimension:
    """A parameter of the race as a searcher of modelyard has it."""
    return domain(axis).dimensions(axis.name)[0]


def space(case: Case) -> Space:
    """The parameters of a case with their conditions."""
    return Space(
        [
            Parameter(
                name=axis.name, default=case.default[axis.name], domain=domain(axis),
                when=tuple(Condition(parameter=name, values=values) for name, values in axis.when),
            )
            for axis in case.axes
        ]
    )  # fmt: skip


def coded(case: Case, values: Mapping[str, Any]) -> Point:
    """Values as a point: choices as their JSON, what does not count at its default."""
    return space(case).point(values)


def decoded(case: Case, point: Point) -> dict[str, Any]:
    """The values of what counts at a point."""
    return space(case).assignments(point)


def ours(name: str, case: Case, seed: int) -> dict[str, Any]:
    """One run of a searcher, in this process."""
    begun, trained_s, searched, point = time.process_time(), 0.0, space(case), coded(case, case.default)
    settings = SearcherSettings(
        dimensions=searched.dimensions, directions=("minimize",), seed=seed, default=point,
        options=OPTIONS.get(name, ()),
        host=Host(folder=Path(), space=searched, metrics=("loss",)),
    )  # fmt: skip
    searcher = load_plugin("modelyard.tuners", name.removesuffix("-optuna"))(settings)
    trials: list[Trial] = []
    for number in range(case.trials):
        if number > 0:
            point = searched.repair(searcher.propose(trials, number).point)
        before = time.process_time()
        found = value(case, searched.assignments(point))
        trained_s += time.process_time() - before
        trials.append(
            Trial(number=number, point=point, source=name, state=TrialState.COMPLETE, values=(found,))
        )
    return {
        "values": [trial.value for trial in trials],
        "cpu_s": (time.process_time() - begun - trained_s) / case.trials,
        "peer": "modelyard",
    }


def peer(
    name: str, case: str, seed: int, python: str, *, script: str = "tuning_race_peers.py"
) -> dict[str, Any]:
    """One run of a peer, in a process of its own, which is told the values it asks for."""
    argv = [python, str(Path(__file__).with_name(script)), name, case, str(seed)]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process,
    ):
        found: dict[str, Any] | None = None
        for line in process.stdout or ():
            word, _, said = line.partition(" ")
            if word == "ASK" and process.stdin is not None:
                process.stdin.write(f"{value(CASES[case], json.loads(said))!r}\n")
                process.stdin.flush()
            elif word == "RESULT":
                found = json.loads(said)
        if found is None:
            errors.seek(0)
            raise SystemExit(f"{name} on {case}: {errors.read()[-2000:]}")
        return found


def interval(mine: list[float], other: list[float], floor: float = 1e-9) -> tuple[float, float, float]:
    """The mean difference of the logarithms of paired regrets, and its 95 % interval."""
    pairs = zip(mine, other, strict=True)
    apart = [math.log10(max(a, floor)) - math.log10(max(b, floor)) for a, b in pairs]
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
    parser.add_argument("--against", default="optuna-tpe", help="one or several, separated by commas")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=Path, help="keeps every run, and takes those that are there")
    return parser.parse_args()


class Runs:
    """The runs by case, algorithm, seed and what else tells them apart; kept in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._known = path, {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            record = json.loads(line)
            self._known[tuple(record["key"])] = record["run"]

    def run(self, key: tuple[Any, ...], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """One run, made unless it is there."""
        if key not in self._known:
            self._known[key] = make()
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(json.dumps({"key": key, "run": self._known[key]}) + "\n")
        return self._known[key]

    def lowest(self, case: Case) -> float:
        """The lowest value there is, or the lowest that any run of the case has seen."""
        if case.lowest is not None:
            return case.lowest
        return min(min(run["values"]) for (name, *_), run in self._known.items() if name == case.name)


def table(
    case: Case, runs: Mapping[str, list[dict[str, Any]]], lowest: float, against: list[str]
) -> list[Any]:
    """A row for each algorithm, which is printed too."""
    rows = []
    regrets = {name: [min(run["values"]) - lowest for run in ran] for name, ran in runs.items()}
    beside = [name for name in against if name in runs]
    for name, ran in runs.items():
        own = regrets[name]
        quarters = statistics.quantiles(own, method="inclusive") if len(own) > 1 else own * 3
        row = {
            "case": case.name, "algorithm": name, "seeds": len(ran), "trials": case.trials, "lowest": lowest,
            "median_regret": statistics.median(own), "quarters": quarters, "regrets": own,
            "cpu_s": statistics.median(run["cpu_s"] for run in ran), "peer": ran[0]["peer"],
            "log10_against": {other: interval(own, regrets[other], case.floor) for other in beside},
            "values": [run["values"] for run in ran],
        }  # fmt: skip
        rows.append(row)
        told = [
            f"  log10 against {other} {mean:+.2f} [{low:+.2f}, {high:+.2f}]"
            for other, (mean, low, high) in row["log10_against"].items()
        ]
        print(
            f"{case.name:10} {name:16} median {row['median_regret']:.6f} "
            f"[{quarters[0]:.6f}, {quarters[2]:.6f}]{''.join(told)}  {row['cpu_s']:.4f} CPU s a trial",
            flush=True,
        )
    return rows


def raced(name: str, case: Case, seed: int, python: str) -> dict[str, Any]:
    """One run of a searcher of ours, or of a peer in its own interpreter."""
    return peer(name, case.name, seed, python) if name in PEERS else ours(name, case, seed)


def main() -> None:
    """Run the race and print its table."""
    asked = read_arguments()
    pythons = dict(pair.split("=", 1) for pair in asked.python.split(",") if pair)
    names, rows = asked.algorithms.split(","), list[Any]()
    kept = Runs(asked.runs)
    for case in (CASES[name] for name in asked.cases.split(",")):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for seed in range(asked.seeds):
            for name in names:
                python = pythons.get(name, sys.executable)
                made = functools.partial(raced, name, case, seed, python)
                runs[name].append(kept.run((case.name, name, seed), made))
            print(f"{case.name}: seed {seed} done", file=sys.stderr)
        rows += table(case, runs, kept.lowest(case), asked.against.split(","))
    if asked.json:
        asked.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
