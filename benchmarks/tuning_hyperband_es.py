"""What extrapolating learning curves saves: `hyperband_es` beside `hyperband` and whole trainings.

    python benchmarks/tuning_hyperband_es.py [--trials 40] [--seeds 10] [--least 5]

The curves are real: networks on scikit-learn's digits (`tuning_digits.py`, 27 epochs). Each configuration is
trained once to its end, and the study is replayed on its curve; an epoch that an algorithm did not want
counts nothing. All draw the same configurations (their points are random search's, seed for seed).
`power_law` is Hyperband with the criterion of TAO AutoML 7.2, as its source tells it, asked after each epoch:
one power law by least squares in all three parameters, believed where it explains 0.8 of the variance, and
held against the newest values of all others with 5 % to spare. `median` is random search with
`stop: median`. Told: CPU seconds of the epochs that were
wanted, the lowest validation loss of the complete trials, and how often the best configuration of all was
stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from modelyard.core.plugins import load_plugin
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.dimensions import Point
from modelyard.tuning.library import space_of
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.searchers.halving import HyperbandSearcher
from modelyard.tuning.searchers.median import MedianRule, MedianStopping
from modelyard.tuning.trial import Trial, TrialState
from tuning_digits import EPOCHS, curve
from tuning_stopping import SPACE

#: Of the other program's criterion: points before it says anything, variance explained, and what it spares.
_LEAST, _EXPLAINED, _SPARE = 3, 0.8, 1.05


@dataclass(slots=True)
class Trainings:
    """What each configuration came to, epoch by epoch, and what an epoch of it cost."""

    seed: int
    space: object = field(default_factory=lambda: space_of(yaml.safe_load(SPACE)))
    known: dict[tuple[object, ...], tuple[list[float], float]] = field(default_factory=dict)

    def of(self, point: Point) -> tuple[list[float], float]:
        """The losses of a configuration, and the CPU seconds of one epoch; trained once."""
        key = tuple(point.values())
        if key not in self.known:
            begun = time.process_time()
            losses = list(curve(self.space.assignments(point), epochs=EPOCHS, seed=self.seed))
            self.known[key] = losses, (time.process_time() - begun) / EPOCHS
        return self.known[key]


class PowerLawSearcher(HyperbandSearcher):
    """Hyperband with the criterion of another program, as a measure of ours."""

    def keeps(self, trials: Sequence[Trial], number: int, step: int) -> bool:
        """Whether what one power law tells of the end is as good as the newest values of others."""
        if not super().keeps(trials, number, step):
            return False
        mine = next(trial for trial in trials if trial.number == number)
        others = [t.curve[max(t.curve)] for t in trials if t.number != number and t.curve]
        if len(mine.curve) < _LEAST or not others or step >= EPOCHS:
            return True
        end, explained = power_law(mine.curve)
        return explained < _EXPLAINED or end <= min(others) * _SPARE


def power_law(curve: Mapping[int, float]) -> tuple[float, float]:
    """The end of a fitted a t^b + c, and the share of the variance that it explains."""
    from scipy.optimize import curve_fit

    at, values = np.array(list(curve), dtype=float), np.array(list(curve.values()))

    def law(t: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a * t**b + c

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            first = (values[0] - values[-1], -0.5, values[-1])
            found, _ = curve_fit(law, at, values, p0=first, maxfev=1000)
        except RuntimeError:  # it does not converge
            return 0.0, 0.0
    spread = float(np.square(values - values.mean()).sum())
    left = float(np.square(values - law(at, *found)).sum())
    return float(law(np.array(float(EPOCHS)), *found)), 1 - left / spread if spread else 0.0


def searched(algorithm: str, trainings: Trainings, chosen: argparse.Namespace) -> dict[str, float]:
    """One search over the curves: what it cost and found."""
    name = {"power_law": "hyperband", "median": "random"}.get(algorithm, algorithm)
    factory = load_plugin("modelyard.tuners", name)
    options = (("least", chosen.least),) if algorithm == "hyperband_es" else ()
    settings = SearcherSettings(
        dimensions=trainings.space.dimensions, directions=("minimize",), seed=trainings.seed,
        rungs=Rungs(low=1, high=EPOCHS, eta=3) if factory.rungs else None, options=options,
    )  # fmt: skip
    how = Simulation(
        curve=lambda point, step: trainings.of(point)[0][step - 1], steps=EPOCHS, parallel=chosen.parallel,
        seed=trainings.seed, default=trainings.space.default(),
    )  # fmt: skip
    searcher = PowerLawSearcher(settings) if algorithm == "power_law" else factory(settings)
    if algorithm == "median":
        searcher = MedianStopping(searcher, MedianRule(), direction="minimize")
    trials = SimulatedStudy(searcher, how).run(trials=chosen.trials)
    ends = [trainings.of(trial.point)[0][-1] for trial in trials]
    return {
        "cpu_s": sum(trainings.of(t.point)[1] * max(t.curve) for t in trials),
        "epochs": float(sum(max(t.curve) for t in trials)),
        "stopped": float(sum(t.state is TrialState.PRUNED for t in trials)),
        "best": min(t.values[0] for t in trials if t.values),
        "lost_the_best": float(trials[ends.index(min(ends))].state is TrialState.PRUNED),
    }


def main() -> None:
    """Replay every algorithm with every seed, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--least", type=int, default=5)
    parser.add_argument("--algorithms", default="random,hyperband,hyperband_es,power_law,median")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--curves", type=Path, help="where all curves are kept, for other programs")
    chosen = parser.parse_args()
    names = chosen.algorithms.split(",")
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    kept = []
    for seed in range(chosen.seeds):
        trainings = Trainings(seed)
        for name in names:
            rows[name].append(searched(name, trainings, chosen))
        kept += [losses for losses, _ in trainings.known.values()]
        if chosen.curves:
            chosen.curves.write_text(json.dumps(kept))
        print(seed, {name: rows[name][-1] for name in names}, flush=True)
    for name in names:
        middle = {k: round(statistics.median(row[k] for row in rows[name]), 4) for k in rows[name][0]}
        lost = sum(row["lost_the_best"] for row in rows[name])
        print(f"{name:<13} {middle}  stopped the best of all in {lost:.0f} of {chosen.seeds}")
    for name in names[1:]:
        pairs = list(zip(rows[names[0]], rows[name], strict=True))
        share = statistics.median(other["cpu_s"] / whole["cpu_s"] for whole, other in pairs)
        gaps = [round(other["best"] - whole["best"], 4) for whole, other in pairs]
        print(f"{name} took {share:.2f} of the CPU seconds of {names[0]}; its best loss is above by {gaps}")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
