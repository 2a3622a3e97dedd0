"""One run of a peer's search over steps on one case, by the peer's own interface.

    python benchmarks/tuning_fidelity_peers.py PEER CASE SEED

Prints the best value after a whole training, within the case's total of steps. Run in an interpreter that
has the peer; it needs nothing of modelyard. What a peer promotes goes on from its checkpoint: only the steps
that are new are counted.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tuning_fidelity_cases import CASES, Case, from_unit

Run = Callable[[Case, int], float]


class Spent:
    """The steps so far, and the best value after a whole training."""

    def __init__(self, case: Case) -> None:
        self.case, self.steps, self.best = case, 0, math.inf
        self._known: dict[tuple[Any, ...], tuple[Any, int, float]] = {}

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return self.steps >= self.case.total

    def value(self, point: Mapping[str, Any], budget: float) -> float:
        """The value of a point after so many steps, from its checkpoint where there is one."""
        budget = round(budget)
        key = tuple(point[axis.name] for axis in self.case.axes)
        state, done, value = self._known.get(key, (self.case.begin(), 0, math.inf))
        if done > budget:  # an earlier step than the checkpoint's
            state, done = self.case.begin(), 0
        for _ in range(budget - done):
            state, value = self.case.advance(state, point)
        if self.steps + budget - done <= self.case.total and budget >= self.case.high:
            self.best = min(self.best, value)
        self.steps += budget - done
        self._known[key] = (state, budget, value)
        return value


def _dehb(case: Case, seed: int) -> float:
    from dehb import DEHB

    spent = Spent(case)
    with tempfile.TemporaryDirectory() as folder:
        search = DEHB(
            f=None, cs=None, dimensions=len(case.axes), min_fidelity=case.low, max_fidelity=case.high,
            eta=3, n_workers=1, seed=seed, output_path=folder, log_level="ERROR",
        )  # fmt: skip
        while not spent.over:
            job = search.ask()
            point = {
                axis.name: from_unit(axis, float(at))
                for axis, at in zip(case.axes, job["config"], strict=True)
            }
            value = spent.value(point, job["fidelity"])
            search.tell(job, {"fitness": value, "cost": float(job["fidelity"])})
    return spent.best


def _hpbandster(case: Case, seed: int) -> float:
    import ConfigSpace
    import hpbandster.core.nameserver as names
    import numpy as np
    from hpbandster.core.worker import Worker
    from hpbandster.optimizers import BOHB

    np.random.seed(seed)  # noqa: NPY002  (what it draws from)
    spent = Spent(case)
    space = ConfigSpace.ConfigurationSpace(seed=seed)
    for axis in case.axes:
        kind = (
            ConfigSpace.UniformIntegerHyperparameter
            if axis.kind == "int"
            else ConfigSpace.UniformFloatHyperparameter
        )
        space.add_hyperparameter(kind(axis.name, axis.low, axis.high, log=axis.log))

    class Training(Worker):
        def compute(self, config: dict[str, Any], budget: float, **_: Any) -> dict[str, Any]:
            return {"loss": spent.value(config, budget), "info": {}}

    server = names.NameServer(run_id=f"run{seed}", host="127.0.0.1", port=0)
    host, port = server.start()
    where = {"nameserver": host, "nameserver_port": port, "run_id": f"run{seed}"}
    Training(**where).run(background=True)
    search = BOHB(configspace=space, min_budget=case.low, max_budget=case.high, eta=3, **where)
    iterations = 0
    while not spent.over:
        iterations += 1
        search.run(n_iterations=iterations)
    search.shutdown(shutdown_workers=True)
    server.shutdown()
    return spent.best


def _syne_pbt(case: Case, seed: int) -> float:
    """As Syne Tune's tuner drives it: ten workers, which report in any order."""
    from syne_tune.backend.trial_status import Trial
    from syne_tune.config_space import loguniform, randint, uniform
    from syne_tune.optimizer.schedulers.pbt import PopulationBasedTraining

    space = {
        axis.name: randint(axis.low, axis.high)
        if axis.kind == "int"
        else (loguniform if axis.log else uniform)(axis.low, axis.high)
        for axis in case.axes
    }
    search = PopulationBasedTraining(
        space, metric="loss", time_attr="step", max_t=case.high, do_minimize=True, random_seed=seed,
        population_size=10, perturbation_interval=case.low, quantile_fraction=0.2,
    )  # fmt: skip
    order, steps, best, number = random.Random(seed), 0, math.inf, 0
    states: dict[int, tuple[Any, int]] = {}
    running: dict[int, Any] = {}
    begun = datetime.now(UTC)
    while steps < case.total:
        while len(running) < 10:
            asked = search.suggest()
            source = asked.checkpoint_trial_id
            states[number] = (case.begin(), 0) if source is None else states[source]
            running[number] = Trial(trial_id=number, config=asked.config, creation_time=begun)
            search.on_trial_add(running[number])
            number += 1
        chosen = order.choice(sorted(running))
        trial = running[chosen]
        state, done = states[chosen]
        state, value = case.advance(state, trial.config)
        states[chosen] = (state, done + 1)
        steps += 1
        if done + 1 >= case.high:
            best = min(best, value)
        if search.on_trial_result(trial, {"step": done + 1, "loss": value}) == "STOP":
            del running[chosen]
    return best


PEERS: Mapping[str, tuple[Run, str]] = {
    "dehb-peer": (_dehb, "DEHB"),
    "hpbandster": (_hpbandster, "hpbandster"),
    "syne-pbt": (_syne_pbt, "syne-tune"),
}


def main() -> None:
    """Run it once."""
    name, case, seed = sys.argv[1:]
    run, package = PEERS[name]
    warnings.simplefilter("ignore")
    best = run(CASES[case], int(seed))
    told = {"best": best, "peer": f"{package} {importlib.metadata.version(package)}"}
    print("RESULT " + json.dumps(told))


if __name__ == "__main__":
    main()
