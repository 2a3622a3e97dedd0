"""The report of the benchmark of merging's use: every merge of every family measured, and the tables.

Scores are kept beside the checkpoints as they come, so that an interrupted report goes on. A row of a
table is one recipe over all families of a design; differences are taken within a family first.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from merge_helps_family import MEAN, SPLITS, Family, Scores, Subject, best
from merge_helps_recipes import (
    HIGHEST_SHARE,
    Quest,
    Recipe,
    Tool,
    average,
    merge,
    method_records,
    objective,
    recipes,
    search,
)

ROUNDING = 1e-6  # a gain is more than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a report covers."""

    folder: Path
    tool: Path
    ours: bool
    trials: int
    skip: tuple[str, ...]
    fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one family showed: its checkpoints and merges by label, each split by split."""

    family: Family
    checkpoints: Mapping[str, Mapping[str, Scores]]
    merges: Mapping[str, Mapping[str, Scores]]
    control: Mapping[str, Mapping[str, Scores]]
    # The search's merge by its weights; empty where nothing was searched.
    searched: Mapping[str, Mapping[str, Scores]]


class Bench:
    """Measures checkpoints and merges of one family, each once."""

    def __init__(self, subject: Subject, tool: Tool, family: Family, *, fresh: bool) -> None:
        self.subject, self.tool, self.family = subject, tool, family
        self.seed = int(next(p.name for p in (family.home, *family.home.parents) if "seed-" in p.name)[5:])
        self._file = family.home / f"scores-{tool.name}.json"
        self._kept = {} if fresh or not self._file.exists() else json.loads(self._file.read_text())

    def checkpoint(self, name: str) -> dict[str, Scores]:
        """The scores of one of the family's own checkpoints."""
        return {split: self._score(name, split, self.family.home / name) for split in SPLITS}

    def recipe(self, whole: Mapping[str, Any], splits: Iterable[str] = SPLITS) -> dict[str, Scores]:
        """The scores of a merge, which is removed again."""
        key = hashlib.sha256(json.dumps(whole).encode()).hexdigest()
        lacking = [split for split in splits if f"{key} {split}" not in self._kept]
        if lacking:
            with tempfile.TemporaryDirectory(dir=self.family.home) as work:
                merge(self.tool, whole, Path(work) / "merged", self.seed)
                for split in lacking:
                    self._score(key, split, Path(work) / "merged")
        return {split: self._kept[f"{key} {split}"] for split in splits}

    def search(self, trials: int) -> dict[str, dict[str, Scores]]:
        """The scores of the merge that a search on val finds, by its weights."""
        command = objective(self.subject.script, "mean_loss")
        quest = Quest(family=self.family, trials=trials, seed=self.seed, objective=command)
        key = f"search of {trials} up to {HIGHEST_SHARE}"
        with tempfile.TemporaryDirectory(dir=self.family.home) as work:
            if key not in self._kept:
                out = Path(work) / "found"
                weights = search(
                    self.tool, quest, out, lambda whole: self.recipe(whole, ["val"])["val"][MEAN]["loss"]
                )
                for split in SPLITS:
                    self._score(f"{key} gave", split, out)
                self._keep(key, weights)
        return {self._kept[key]: {split: self._kept[f"{key} gave {split}"] for split in SPLITS}}

    def _score(self, key: str, split: str, checkpoint: Path) -> Scores:
        place = f"{key} {split}"
        if place not in self._kept:
            self._keep(place, self.subject.measure(checkpoint, split, self.family.domains))
        scores: Scores = self._kept[place]
        return scores

    def _keep(self, place: str, value: object) -> None:
        self._kept[place] = value
        self._file.write_text(json.dumps(self._kept, indent=1))


def print_report(subject: Subject, plan: Plan) -> None:
    """Measure everything and print the tables of each design."""
    tool = Tool(path=plan.tool, ours=plan.ours)
    found = [
        examine(Bench(subject, tool, family, fresh=plan.fresh), plan)
        for family in subject.families(plan.folder)
    ]
    if not found:
        raise SystemExit(f"{plan.folder} holds no checkpoints; make them first: make {plan.folder}")
    print(f"# Does merging help? {subject.title}\n\nMerged by {tool.name}. {subject.note}")
    by_design = sorted(found, key=lambda each: each.family.design, reverse=True)
    for design, group in groupby(by_design, key=lambda each: each.family.design):
        members = list(group)
        print(f"\n## {design}: {len(members)} families, one a seed" if len(members) > 1 else f"\n## {design}")
        print_parents(subject, members)
        print_merges(subject, members)
        if all(each.searched for each in members):
            print_search(subject, members)


def examine(bench: Bench, plan: Plan) -> Found:
    """Every checkpoint and merge of one family."""
    family = bench.family
    names = (*family.parents, family.joint, *([family.unrelated] if family.unrelated else []))
    checkpoints = {name: bench.checkpoint(name) for name in names}
    ranked = sorted(family.specialists, key=lambda name: checkpoints[name]["val"][MEAN]["loss"])
    records = method_records(bench.tool, plan.skip)
    chosen = [one for record in records for one in recipes(record, family, (ranked[0], ranked[1]))]
    control: list[Recipe] = [average(family, (family.base, family.unrelated))] if family.unrelated else []
    return Found(
        family=family,
        checkpoints=checkpoints,
        merges={one.label: bench.recipe(one.document) for one in chosen},
        control={one.label: bench.recipe(one.document) for one in control},
        searched=bench.search(plan.trials) if family.searched and plan.trials else {},
    )


def print_parents(subject: Subject, found: Sequence[Found]) -> None:
    """What each specialist gained on its own domain: garbage specialists give garbage merges."""
    print("\nEach specialist on its own domain (test), and what it lost on the others:\n")
    print(
        "| specialist | measure | base | specialist | gain | better in | others: base | others: specialist |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in found[0].family.specialists:
        for measure, higher in subject.measures.items():
            base, own, base_rest, own_rest = (
                [value(each, who, domains(each, name), measure) for each in found]
                for who, domains in (("", itself), (name, itself), ("", others), (name, others))
            )
            gains = [(b - a) if higher else (a - b) for a, b in zip(base, own, strict=True)]
            cells = [spread(base), spread(own), spread(gains, sign="+"), share(gains)]
            cells += [spread(base_rest), spread(own_rest)]
            print(f"| {name} | {measure} | {' | '.join(cells)} |")


def itself(_found: Found, name: str) -> list[str]:
    """The domain that a specialist is named after."""
    return [name]


def others(found: Found, name: str) -> list[str]:
    """All domains but that."""
    return [domain for domain in found.family.domains if domain != name]


def value(found: Found, name: str, domains: Sequence[str], measure: str) -> float:
    """A checkpoint's mean over some domains of the test data; the base where it has no name."""
    scores = found.checkpoints[name or found.family.base]["test"]
    return statistics.fmean(scores[domain][measure] for domain in domains)


def print_merges(subject: Subject, found: Sequence[Found]) -> None:
    """Everything that was measured, domain by domain, and what it adds to the best parent."""
    first, *rest = subject.measures
    domains = (*found[0].family.domains, MEAN)
    more = [f"mean {measure}" for measure in rest]
    gains = [f"{measure}: gain on best parent" for measure in subject.measures]
    heads = ["", *(f"{first}, {domain}" for domain in domains), *more, *gains, "beats base and parents"]
    print("\nOn test; a gain is that on the best of base and parents, chosen on test itself:\n")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    lines: list[tuple[str, Callable[[Found], Scores]]] = [
        *((name, lambda each, name=name: each.checkpoints[name]["test"]) for name in found[0].checkpoints),
        *((name, lambda each, name=name: each.control[name]["test"]) for name in found[0].control),
        *((name, lambda each, name=name: each.merges[name]["test"]) for name in found[0].merges),
    ]
    if all(each.searched for each in found):
        lines.append(("task_arithmetic, weights searched on val", lambda each: only(each.searched)["test"]))
    for label, scores_of in lines:
        scores = [scores_of(each) for each in found]
        cells = [spread([s[domain][first] for s in scores]) for domain in domains]
        cells += [spread([s[MEAN][measure] for s in scores]) for measure in rest]
        advantages = [[gain(s, each, m, higher=h) for s, each in zip(scores, found, strict=True)]
                      for m, h in subject.measures.items()]  # fmt: skip
        cells += [spread(values, sign="+") for values in advantages]
        told = "" if label in found[0].checkpoints else verdict(advantages[0])
        print(f"| {label} | {' | '.join(cells)} | {told} |")


def gain(scores: Scores, found: Found, measure: str, *, higher: bool) -> float:
    """What a checkpoint's mean is better by than that of the best of base and parents."""
    bar = best(
        (found.checkpoints[name]["test"][MEAN][measure] for name in found.family.parents), higher=higher
    )
    return scores[MEAN][measure] - bar if higher else bar - scores[MEAN][measure]


def print_search(subject: Subject, found: Sequence[Found]) -> None:
    """The searched weights against the fixed recipe that is best on val, both on test."""
    print("\nThe search over weights and the best fixed recipe, both chosen by the mean loss on val:\n")
    heads = ["seed", "best fixed recipe", "val loss", "weights found", "val loss"]
    heads += [f"test {measure}: fixed, searched, gain" for measure in subject.measures]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    gains: dict[str, list[float]] = {measure: [] for measure in subject.measures}
    for number, each in enumerate(found, 1):
        label = min(each.merges, key=lambda name: each.merges[name]["val"][MEAN]["loss"])
        fixed, searched = each.merges[label], only(each.searched)
        cells = [str(number), label, f"{fixed['val'][MEAN]['loss']:.4f}"]
        cells += [next(iter(each.searched)), f"{searched['val'][MEAN]['loss']:.4f}"]
        for measure, higher in subject.measures.items():
            before, after = fixed["test"][MEAN][measure], searched["test"][MEAN][measure]
            gains[measure].append(after - before if higher else before - after)
            cells.append(f"{before:.4f}, {after:.4f}, {gains[measure][-1]:+.4f}")
        print(f"| {' | '.join(cells)} |")
    print()
    for measure, values in gains.items():
        print(f"- {measure}: the search gains {spread(values, sign='+')} on test; {verdict(values)}.")


def only(values: Mapping[str, Mapping[str, Scores]]) -> Mapping[str, Scores]:
    """The one value of a mapping of one."""
    (value_,) = values.values()
    return value_


def spread(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and standard deviation; the value itself where there is one."""
    digits = ".3f" if abs(statistics.fmean(values)) < 10 else ".2f"
    told = f"{statistics.fmean(values):{sign}{digits}}"
    return told if len(values) < 2 else f"{told} ± {statistics.stdev(values):{digits}}"


def share(gains: Sequence[float]) -> str:
    """In how many of the families there is a gain."""
    return f"{sum(value_ > ROUNDING for value_ in gains)} of {len(gains)}"


def verdict(gains: Sequence[float]) -> str:
    """Whether there is a gain: in all families, in none, or in how many."""
    count = sum(value_ > ROUNDING for value_ in gains)
    word = "yes" if count == len(gains) else "no" if count == 0 else "not always"
    return word if len(gains) < 2 else f"{word} ({share(gains)})"
