"""Searches that look at steps, beside peers and random search, with the same number of steps in all.

    OMP_NUM_THREADS=1 python benchmarks/tuning_fidelity.py [--cases crossing,digits] [--seeds 20]
        [--algorithms random,hyperband,bohb,hpbandster] [--python hpbandster=PATH] [--json out.json]

Ours are the names of the group `modelyard.tuners`; `-stop` after one lets its trials run on and stops them,
otherwise trials end at their rungs and are promoted from their checkpoints. Peers run by their own interfaces
in processes of their own (`tuning_fidelity_peers.py`). Regret: the best value after a whole training, minus
the lowest there is. The interval is that of the median of the paired differences of the regrets' decimal
logarithms against `--against`, 95 %, by the bootstrap. Case `digits` needs a table: see
`tuning_fidelity_cases.py`, and name it in the environment as TUNING_TABLE.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import modelyard
from modelyard.core.plugins import load_plugin
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Rungs, Searcher, SearcherSettings
from modelyard.tuning.trial import Proposal, Trial, TrialState
from tuning_fidelity_cases import CASES, Case
from tuning_fidelity_peers import PEERS
from tuning_race import peer

_PEERS = "tuning_fidelity_peers.py"

FLOOR = 1e-9  # a regret below this counts as this
LOST = 1e9  # the regret of a run without a finite result: it loses to every run that has one
#: These train a whole population at once, the others one trial after another; `pbt-4` trains four at once.
TOGETHER = {"pbt": 10}


class Study:
    """Trials with their checkpoints, advanced step by step in a random order."""

    def __init__(self, case: Case, searcher: Searcher, *, parallel: int, seed: int) -> None:
        self.trials: list[Trial] = []
        self._case, self._searcher, self._parallel = case, searcher, parallel
        self._order = random.Random(seed)
        self._states: dict[int, tuple[Any, int]] = {}
        self._running: list[int] = []

    def run(self) -> float:
        """The best value after a whole training."""
        for _ in range(self._case.total):
            while len(self._running) < self._parallel:
                proposal = self._searcher.propose(self.trials, len(self.trials))
                if proposal is None:
                    break
                self._begin(proposal)
            if not self._running:
                break
            self._advance(self._order.choice(self._running))
        whole = [t for t in self.trials if t.values and max(t.curve) >= self._case.high]
        return min((trial.values[0] for trial in whole), default=math.inf)

    def _begin(self, proposal: Proposal) -> None:
        number = len(self.trials)
        kept = {name: getattr(proposal, name) for name in ("point", "source", "budget", "parent", "notes")}
        self.trials.append(Trial(number=number, **kept))
        self._states[number] = (
            (self._case.begin(), 0) if proposal.parent is None else self._states[proposal.parent]
        )
        self._running.append(number)

    def _advance(self, number: int) -> None:
        state, done = self._states[number]
        trial = self.trials[number]
        state, value = self._case.advance(state, trial.point)
        self._states[number] = (state, done + 1)
        trial = replace(trial, curve={**trial.curve, done + 1: value})
        self.trials[number] = trial
        if done + 1 >= (trial.budget or self._case.high):
            trial = replace(trial, state=TrialState.COMPLETE, values=(value,))
        elif not self._searcher.keeps(self.trials, number, done + 1):
            trial = replace(trial, state=TrialState.PRUNED)
        self.trials[number] = trial
        if trial.state.final:
            self._running.remove(number)


def ours(name: str, case: Case, seed: int) -> dict[str, Any]:
    """One run of a searcher of modelyard."""
    algorithm, _, how = name.partition("-")
    settings = SearcherSettings(
        dimensions=tuple(
            Dimension(name=axis.name, kind=axis.kind, low=axis.low, high=axis.high, log=axis.log)  # type: ignore[arg-type]
            for axis in case.axes
        ),
        directions=("minimize",), seed=seed,
        rungs=Rungs(low=case.low, high=case.high, eta=3, promote=how != "stop"),
    )  # fmt: skip
    searcher = load_plugin("modelyard.tuners", algorithm)(settings)
    parallel = int(how) if how.isdigit() else TOGETHER.get(algorithm, 1)
    study = Study(case, searcher, parallel=parallel, seed=seed)
    return {"best": study.run(), "peer": f"modelyard {modelyard.__version__}"}


def interval(mine: list[float], other: list[float]) -> tuple[float, float, float]:
    """The median of the paired differences of logarithms, and its 95 % interval by the bootstrap."""
    apart = [_logarithm(a) - _logarithm(b) for a, b in zip(mine, other, strict=True)]
    rng = random.Random(0)
    again = sorted(statistics.median(rng.choices(apart, k=len(apart))) for _ in range(2000))
    return statistics.median(apart), again[50], again[1949]


def _logarithm(regret: float) -> float:
    return math.log10(max(regret, FLOOR) if math.isfinite(regret) else LOST)


def read_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--algorithms", default="random,hyperband,bohb,dehb")
    parser.add_argument("--python", default="", help="name=interpreter of peers, separated by commas")
    parser.add_argument("--against", default="random")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run all, and print a table."""
    asked = read_arguments()
    pythons = dict(pair.split("=", 1) for pair in asked.python.split(",") if pair)
    rows = []
    for case in (CASES[name] for name in asked.cases.split(",")):
        lowest = case.lowest()
        found: dict[str, list[float]] = {}
        for name in asked.algorithms.split(","):
            ran = [
                peer(name, case.name, seed, pythons.get(name, sys.executable), script=_PEERS)
                if name in PEERS
                else ours(name, case, seed)
                for seed in range(asked.seeds)
            ]
            found[name] = [one["best"] - lowest for one in ran]
            row = {
                "case": case.name, "algorithm": name, "by": ran[0]["peer"], "regrets": found[name],
                "median": statistics.median(found[name]),
            }  # fmt: skip
            told = ""
            if asked.against in found:
                row["against"], row["apart"] = asked.against, interval(found[name], found[asked.against])
                told = "log10 apart {:+.2f} [{:+.2f}, {:+.2f}]".format(*row["apart"])
            rows.append(row)
            print(f"{case.name:10} {name:14} {row['median']:.5f}  {told}  {row['by']}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({"seeds": asked.seeds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
