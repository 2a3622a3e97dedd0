"""What a warm start gains: few trials on a moved Branin function after a study of the function itself.

    python benchmarks/tuning_warm_start.py [--trials 10] [--earlier 30] [--seeds 20] [--algorithms tpe]

The earlier study has 30 trials of the same algorithm on Branin's function, with another seed. The new one is
on that function moved by so much of its ranges, times 1.2, plus 1: like a model trained again on newer data.
Told: the median over seeds of the lowest regret after so many trials of the new study, the default and, with
a warm start, the earlier best among them: without a warm start, with the earlier best alone (`first`), and
with all earlier values shown to the algorithm too (`inform`).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from modelyard.core.plugins import load_plugin
from modelyard.tuning.dimensions import Dimension, Point
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.trial import Trial, TrialState

DIMENSIONS = (
    Dimension(name="x", kind="float", low=-5.0, high=10.0),
    Dimension(name="y", kind="float", low=0.0, high=15.0),
)
DEFAULT: Point = {"x": 2.5, "y": 7.5}
LOWEST = 0.39788735772973816
#: One engine everywhere, whatever is installed.
OPTIONS = {"bayesian": (("engine", "optuna"),)}


def branin(point: Point) -> float:
    """Branin's function."""
    x, y = float(point["x"]), float(point["y"])
    bent = y - 5.1 / (4 * math.pi**2) * x**2 + 5 / math.pi * x - 6
    return bent**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def moved(point: Point, *, by: float) -> float:
    """The function moved along both axes; where it would be lowest outside, two other places remain."""
    there = {"x": float(point["x"]) + 15 * by, "y": float(point["y"]) - 15 * by}
    return 1.2 * branin(there) + 1


def searched(
    searcher: Searcher, function: Callable[[Point], float], starts: list[Point], trials: int,
    earlier: list[Trial],
) -> list[Trial]:  # fmt: skip
    """A study without jobs, one trial at a time; the starts come first."""
    known: list[Trial] = []
    for number in range(trials):
        proposal = searcher.propose([*earlier, *known], number)
        if proposal is None:
            break
        point = starts[number] if number < len(starts) else proposal.point
        notes = proposal.notes
        value = function(point)
        known.append(
            Trial(
                number=number,
                point=point,
                source="x",
                state=TrialState.COMPLETE,
                values=(value,),
                notes=notes,
            )
        )
    return known


def regret(trials: list[Trial]) -> float:
    """Of the best, on the scale of the function itself."""
    return (min(t.values[0] for t in trials if t.values) - 1) / 1.2 - LOWEST


def main() -> None:
    """Print one row for each algorithm and move."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--earlier", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--algorithms", default="tpe,bayesian,cmaes")
    parser.add_argument("--moves", default="0,0.03,0.1,0.3", help="as shares of the ranges")
    chosen = parser.parse_args()
    moves = [float(each) for each in chosen.moves.split(",")]
    print(f"median regret after {chosen.trials} trials, {chosen.seeds} seeds: without | first | inform too")
    for name in chosen.algorithms.split(","):
        rows: dict[float, list[tuple[float, float, float]]] = {by: [] for by in moves}
        for seed in range(chosen.seeds):
            settings = SearcherSettings(
                dimensions=DIMENSIONS,
                directions=("minimize",),
                seed=seed,
                default=DEFAULT,
                options=OPTIONS.get(name, ()),
            )
            make = partial(load_plugin("modelyard.tuners", name), settings)
            other = load_plugin("modelyard.tuners", name)(replace(settings, seed=seed + 1000))
            old = searched(other, branin, [DEFAULT], chosen.earlier, [])
            shown = [replace(t, number=t.number - len(old), notes={}) for t in old]
            best = min(old, key=lambda t: t.values or ()).point
            for by in moves:
                function = partial(moved, by=by)
                cold = searched(make(), function, [DEFAULT], chosen.trials, [])
                first = searched(make(), function, [DEFAULT, best], chosen.trials, [])
                informed = searched(make(), function, [DEFAULT, best], chosen.trials, shown)
                rows[by].append((regret(cold), regret(first), regret(informed)))
        for by, found in rows.items():
            middle = " | ".join(f"{statistics.median(column):.4f}" for column in zip(*found, strict=True))
            won = sum(informed < cold for cold, _, informed in found)
            only = sum(informed < first for _, first, informed in found)
            print(f"{name:<9} moved by {by:<4}: {middle}   inform better than without {won}, first {only}")


if __name__ == "__main__":
    main()
