"""CPU time of one step (predict and learn) by experts and series, beside river's EWARegressor.

    python benchmarks/ensemble_cost.py

Random forecasts and values; process time, the median of five rounds. Ours are the library's `Aggregator`,
all series in one; river has a model for each series, so that its step is that of one model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from river import base, ensemble

from modelyard.ensemble.combining.aggregator import Aggregator, Pool

EXPERTS = (10, 100, 1000)
SERIES = (1, 1000)
METHODS = ("boa", "mlpoly", "adahedge", "fixed_share", "inverse_score", "committee")
ROUNDS = 5


class Given(base.Regressor):
    """An expert for river: its forecast stands in the features."""

    def __init__(self, name: int) -> None:
        self.name = name

    def learn_one(self, x: dict, y: float) -> None:
        """Nothing to learn."""

    def predict_one(self, x: dict) -> float:
        """The forecast given."""
        return x[self.name]


def median_us(step: Callable[[int], None], steps: int) -> float:
    """CPU microseconds of one step, after a round that warms up."""
    rounds = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        for t in range(steps):
            step(t)
        rounds.append((time.process_time() - begun) / steps * 1e6)
    return statistics.median(rounds[1:])


def ours_us(method: str, experts: int, series: int) -> float:
    """One step of all series, divided by the series."""
    rng, pool = np.random.default_rng(0), Aggregator(Pool(experts=experts, series=series, method=method))
    steps = max(4, min(200, 2_000_000 // (experts * series)))
    forecast, truth = rng.normal(size=(steps, series, experts)), rng.normal(size=(steps, series))

    def step(t: int) -> None:
        pool.predict(forecast[t])
        pool.update(truth[t])

    return median_us(step, steps) / series


def river_us(experts: int) -> float:
    """One step of one model."""
    rng, model = np.random.default_rng(0), ensemble.EWARegressor([Given(k) for k in range(experts)])
    steps = max(20, 20_000 // experts)
    rows = [dict(enumerate(row)) for row in rng.normal(size=(steps, experts)).tolist()]
    truth = rng.normal(size=steps).tolist()

    def step(t: int) -> None:
        model.predict_one(rows[t])
        model.learn_one(rows[t], truth[t])

    return median_us(step, steps)


def main() -> None:
    """Measure and print a Markdown table."""
    peer = {experts: river_us(experts) for experts in EXPERTS}
    print("| microseconds of CPU a series and step | " + " | ".join(f"{k} experts" for k in EXPERTS) + " |")
    print("|---|" + "---|" * len(EXPERTS))
    print("| river EWARegressor | " + " | ".join(f"{peer[k]:.1f}" for k in EXPERTS) + " |")
    for series in SERIES:
        for method in METHODS:
            cells = []
            for experts in EXPERTS:
                if method == "committee" and experts * experts * series > 200_000:
                    cells.append("not measured")  # its moments take experts squared a series
                    continue
                cost = ours_us(method, experts, series)
                cells.append(f"{cost:.2f} ({peer[experts] / cost:.1f} times)")
            print(f"| {method}, {series} series | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
