"""What stopping saves at equal quality: ASHA and Hyperband on the learning curves of real trainings.

    OMP_NUM_THREADS=1 python benchmarks/tuning_stopping_curves.py [--trials 30] [--seeds 20] [--runs FILE]
        [--algorithms random,asha,hyperband,asha:3]

Networks on scikit-learn's digits (`tuning_digits.py`, 27 epochs) over the space of `tuning_stopping.py`, each
epoch trained when a study first asks for it, and never twice. `random` trains so many configurations to their
ends. The others draw the same ones, then go on with further ones until they have spent as many seconds;
`:3` after a name is their lowest rung instead of 1. Told, over the seeds: what share of the seconds the same
number of trials took, and how much worse its best was; the best at equal seconds beside that of `random`,
with the 95 % interval (Student's) of the difference of the logarithms; and the share of the seconds after
which the median best loss was as low as that of `random` at its end. A second is one of an epoch's CPU: the
start of a process and the default configuration, which is never stopped, come on top in a real study.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.plugins import load_plugin
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.dimensions import Point
from modelyard.tuning.library import space_of
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.trial import Trial
from tuning_digits import EPOCHS, curve
from tuning_race import interval
from tuning_stopping import SPACE

#: The loss of a training that came to an end of its own: as bad as can be told.
_DIVERGED = -math.log(1e-7)
#: So many times the trials of `random`, at most.
_MORE = 40


@dataclass(slots=True)
class Training:
    """A configuration's losses as far as anybody asked, and the seconds of an epoch: those of its second."""

    epochs: Iterator[float]
    losses: list[float] = field(default_factory=list)
    epoch_s: float = math.nan

    def loss(self, epoch: int) -> float:
        """The loss after an epoch."""
        while len(self.losses) < max(epoch, 2):
            begun = time.process_time()
            try:
                self.losses.append(next(self.epochs))
            except (StopIteration, ValueError):  # scikit-learn's word for weights that are not finite
                self.losses.append(_DIVERGED)
            if len(self.losses) == 2:
                self.epoch_s = time.process_time() - begun
        return self.losses[epoch - 1]


@dataclass(slots=True)
class Trainings:
    """The trainings of one seed, by their points."""

    seed: int
    space: Space = field(default_factory=lambda: space_of(yaml.safe_load(SPACE)))
    known: dict[tuple[object, ...], Training] = field(default_factory=dict)

    def of(self, point: Point) -> Training:
        """The training of a point, of what counts there."""
        point = self.space.repair(point)
        key = tuple(point.values())
        if key not in self.known:
            assignments = self.space.assignments(point)
            self.known[key] = Training(curve(assignments, epochs=EPOCHS, seed=self.seed))
        return self.known[key]


class Enough(Exception):  # noqa: N818  (the case it names)
    """The seconds are spent."""


@dataclass(slots=True)
class Meter:
    """Seconds so far, and the best loss of a whole training with the seconds at which it was there."""

    trainings: Trainings
    most_s: float
    spent_s: float = 0.0
    bests: list[tuple[float, float]] = field(default_factory=list)

    def curve(self, point: Point, epoch: int) -> float:
        """The loss after an epoch, which is paid for. Raises `Enough`."""
        training = self.trainings.of(point)
        loss = training.loss(epoch)
        self.spent_s += training.epoch_s
        if self.spent_s > self.most_s:
            raise Enough
        if epoch == EPOCHS and (not self.bests or loss < self.bests[-1][1]):
            self.bests.append((self.spent_s, loss))
        return loss

    def best(self, within_s: float = math.inf) -> float:
        """The best loss after so many seconds."""
        return min((loss for at_s, loss in self.bests if at_s <= within_s), default=math.inf)


def study(algorithm: str, meter: Meter, chosen: argparse.Namespace, trials: int) -> list[Trial]:
    """A study of so many trials, or until the meter has had enough."""
    name, _, low = algorithm.partition(":")
    factory, seed = load_plugin("modelyard.tuners", name), meter.trainings.seed
    space = meter.trainings.space
    settings = SearcherSettings(
        dimensions=space.dimensions, directions=("minimize",), seed=seed,
        rungs=Rungs(low=int(low or 1), high=EPOCHS, eta=3) if factory.rungs else None,
    )  # fmt: skip
    how = Simulation(
        curve=meter.curve, steps=EPOCHS, parallel=chosen.parallel, seed=seed, default=space.default()
    )
    simulated = SimulatedStudy(factory(settings), how)
    try:
        return simulated.run(trials=trials)
    except Enough:
        return simulated.trials


def replayed(algorithm: str, trainings: Trainings, chosen: argparse.Namespace, most_s: float) -> Any:
    """One algorithm with one seed: at equal trials, and at equal seconds."""
    alike, longer = Meter(trainings, math.inf), Meter(trainings, most_s)
    study(algorithm, alike, chosen, chosen.trials)
    if math.isfinite(most_s):
        trials = study(algorithm, longer, chosen, _MORE * chosen.trials)
    else:
        longer, trials = alike, []
    return {
        "cpu_s": alike.spent_s, "best": alike.best(), "bests": longer.bests, "longer": longer.best(),
        "trials": len(trials) or chosen.trials,
    }  # fmt: skip


def crossing(rows: list[Any], wholes: list[Any]) -> float:
    """The share of the seconds of random search after which the median best is as low as its last; or inf."""
    target = statistics.median(whole["best"] for whole in wholes)
    for share in (k / 100 for k in range(1, 101)):
        reached = [
            min((loss for at_s, loss in row["bests"] if at_s <= share * whole["cpu_s"]), default=math.inf)
            for row, whole in zip(rows, wholes, strict=True)
        ]
        if statistics.median(reached) <= target:
            return share
    return math.inf


def report(name: str, rows: list[Any], wholes: list[Any]) -> None:
    """Print an algorithm's line."""
    share = statistics.median(row["cpu_s"] / whole["cpu_s"] for row, whole in zip(rows, wholes, strict=True))
    trials = statistics.median(row["trials"] for row in rows)
    print(
        f"{name:<12} equal trials: {share:.2f} of the seconds, {beside(rows, wholes, 'best')}; "
        f"equal seconds: {trials:.0f} trials, {beside(rows, wholes, 'longer')}; "
        f"as good as random after {crossing(rows, wholes):.2f} of the seconds"
    )


def beside(rows: list[Any], wholes: list[Any], what: str) -> str:
    """The median best loss, and the interval of its difference to that of random search."""
    found = [row[what] for row in rows]
    mean, low, high = interval(found, [whole["best"] for whole in wholes])
    return f"best {statistics.median(found):.4f}, log10 {mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    """Replay every algorithm with every seed, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--algorithms", default="asha,hyperband,asha:3,hyperband:3")
    parser.add_argument("--runs", type=Path, help="keeps what each seed came to, and takes it from there")
    chosen = parser.parse_args()
    lines = chosen.runs.read_text().splitlines() if chosen.runs and chosen.runs.exists() else []
    seeds = {row["seed"]: row for row in map(json.loads, lines)}
    names = ["random", *chosen.algorithms.split(",")]
    for seed in (seed for seed in range(chosen.seeds) if seed not in seeds):
        trainings = Trainings(seed)
        row: dict[str, Any] = {"seed": seed, "random": replayed("random", trainings, chosen, math.inf)}
        for name in names[1:]:
            row[name] = replayed(name, trainings, chosen, row["random"]["cpu_s"])
        row["curves"] = [training.losses for training in trainings.known.values()]
        seeds[seed] = row
        if chosen.runs:
            with chosen.runs.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    wholes = [row["random"] for row in seeds.values()]
    for name in names:
        report(name, [row[name] for row in seeds.values()], wholes)


if __name__ == "__main__":
    main()
