"""What advice costs and brings: `hybrid` beside its own optimiser, `autoresearch`, and random search.

    python benchmarks/tuning_advice.py [--seeds 20] [--optimisers tpe cmaes] [--endpoint URL --model NAME]

On the mixed case. Without an endpoint the adviser is a server of ours that answers as a weak model does: the
default configuration with some noise, whatever the results, and for `autoresearch` as one who knows nothing
and moves one parameter at a time, by the verdicts in its notebook (modelyard.testing.scripted_answers); what
that one draws follows from the program, in which the seed stands. With an endpoint it is that model. The same
seeds and 40 trials for all, the default configuration first; the gap to the lowest value of the function, its
median and quartiles, and the median of the paired differences to the searcher's optimiser (where it has none,
to the first one) with a 95 % interval by 10,000 resamples of the seeds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.core.plugins import load_plugin
from modelyard.testing.openai_server import fake_server
from modelyard.testing.simulated_study import SimulatedStudy, Simulation, best_value
from modelyard.tuning.advice.log import AdviceLog
from modelyard.tuning.dimensions import Point
from modelyard.tuning.searcher import Host, SearcherSettings
from modelyard.tuning.spaces.domains import Choices
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Parameter, Space
from tuning_race_cases import MIXED, Axis

_RESAMPLES = 10_000
#: Sources of trials that a model proposed.
BY_MODEL = ("llm", "autoresearch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adviser:
    """Whom to ask."""

    endpoint: str
    model: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search: the gap it left, and what its model was asked."""

    gap: float
    advised: int = 0
    best_by: str = ""
    calls: int = 0
    refused: int = 0
    tokens: int = 0
    latency_s: float = 0.0


def space() -> Space:
    """The mixed case as a space."""
    default = MIXED.default
    return Space(
        [Parameter(name=axis.name, domain=domain(axis), default=default[axis.name]) for axis in MIXED.axes]
    )


def domain(axis: Axis) -> Choices | Range:
    """The values of one axis."""
    if axis.kind == "choice":
        return Choices(options=axis.choices)
    return Range(low=axis.low, high=axis.high, log=axis.log, integer=axis.kind == "int")


def search(name: str, seed: int, options: Mapping[str, Any], folder: Path) -> Search:
    """One search of this algorithm."""
    searched = space()

    def curve(point: Point, _step: int) -> float:
        return MIXED.function(searched.assignments(point))

    settings = SearcherSettings(
        dimensions=searched.dimensions, directions=("minimize",), seed=seed, default=searched.default(),
        options=tuple(options.items()),
        host=Host(folder=folder, space=searched, metrics=("val_loss",)),
    )  # fmt: skip
    searcher = load_plugin("modelyard.tuners", name)(settings)
    study = SimulatedStudy(searcher, Simulation(curve=curve, default=searched.default(), seed=seed))
    trials = study.run(trials=MIXED.trials)
    calls = AdviceLog(folder).calls()
    best = min((trial for trial in trials if trial.values), key=lambda trial: trial.value or 0.0)
    return Search(
        gap=best_value(trials) - MIXED.lowest, best_by=best.source,
        advised=sum(trial.source in BY_MODEL for trial in trials), calls=len(calls),
        refused=sum(call.outcome != "taken" for call in calls),
        tokens=sum(call.prompt_tokens + call.completion_tokens for call in calls),
        latency_s=sum(call.latency_s for call in calls),
    )  # fmt: skip


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median, by resampling."""
    drawn = random.Random(0)
    medians = sorted(median(drawn.choices(differences, k=len(differences))) for _ in range(_RESAMPLES))
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES)]


@contextmanager
def weak(folder: Path) -> Iterator[Adviser]:
    """A server of ours."""
    with fake_server(folder / "log.jsonl", "--weak-advice") as server:
        yield Adviser(endpoint=server.endpoint, model="adder", options={})


def row(name: str, found: Sequence[Search], beside: Sequence[Search] | None) -> str:
    """One line of the table."""
    gaps = [each.gap for each in found]
    low, _, high = quantiles(gaps, n=4)
    cells = [name, f"{median(gaps):.4f}", f"{low:.4f} to {high:.4f}"]
    if beside is None:
        cells += ["", ""]
    else:
        differences = [mine.gap - other.gap for mine, other in zip(found, beside, strict=True)]
        ends = interval(differences)
        cells += [f"{median(differences):+.4f} ({ends[0]:+.4f} to {ends[1]:+.4f})"]
        cells += [f"{sum(d < 0 for d in differences)} of {len(differences)}"]
    asked = sum(each.calls for each in found)
    best_by_model = sum(each.best_by in BY_MODEL for each in found)
    cells += (
        [f"{sum(each.advised for each in found) / len(found):.1f}", str(best_by_model)] if asked else ["", ""]
    )
    return "| " + " | ".join(cells) + " |"


def compare(adviser: Adviser, optimisers: Sequence[str], seeds: int, folder: Path) -> dict[str, list[Search]]:
    """All searches, by what made them."""
    found: dict[str, list[Search]] = {}
    plain: dict[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in ("random", *optimisers)}
    asking = {"endpoint": adviser.endpoint, "model": adviser.model, **adviser.options}
    mixed = {f"hybrid, {name}": ("hybrid", {**asking, "optimiser": name}) for name in optimisers}
    alone = {"autoresearch": ("autoresearch", asking)}
    for label, (name, options) in {**plain, **mixed, **alone}.items():
        for seed in range(seeds):
            begun = time.monotonic()
            own = {**options, "program": f"Search {seed}."} if name == "autoresearch" else options
            try:
                one = search(name, seed, own, folder / f"{label}-{seed}")
            except TuneError as error:
                sys.stderr.write(f"{label}, seed {seed}: {error}\n")
                break
            found.setdefault(label, []).append(one)
            sys.stderr.write(f"{label}, seed {seed}: {one.gap:.4f} in {time.monotonic() - begun:.1f} s\n")
    return found


def report(found: Mapping[str, Sequence[Search]], optimisers: Sequence[str]) -> str:
    """The table, and what the model was asked."""
    lines = [
        "| searcher | median gap | quartiles | beside its optimiser, paired | better | advised trials "
        "| best by the model |",
        "|---|---|---|---|---|---|---|",
    ]
    for label in found:
        name = label.removeprefix("hybrid, ")
        other = name if label != name else optimisers[0] if label in BY_MODEL else None
        beside = found[other][: len(found[label])] if other is not None and other in found else None
        lines.append(row(label, found[label], beside))
    asked = [each for searches in found.values() for each in searches if each.calls]
    calls = sum(each.calls for each in asked)
    if calls:
        refused, tokens = sum(each.refused for each in asked), sum(each.tokens for each in asked)
        latency_s = sum(each.latency_s for each in asked)
        lines.append(
            f"\n{calls} calls, {refused} refused or failed, {tokens / calls:.0f} tokens and "
            f"{latency_s / calls:.2f} s a call"
        )
    return "\n".join(lines)


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--optimisers", nargs="+", default=["tpe", "cmaes"])
    parser.add_argument("--endpoint")
    parser.add_argument("--model", default="model")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON; of the algorithm")
    chosen = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if chosen.endpoint:
            adviser = Adviser(endpoint=chosen.endpoint, model=chosen.model, options=chosen.options)
            found = compare(adviser, chosen.optimisers, chosen.seeds, folder)
        else:
            with weak(folder) as adviser:
                found = compare(adviser, chosen.optimisers, chosen.seeds, folder)
    print(report(found, chosen.optimisers))


if __name__ == "__main__":
    main()
