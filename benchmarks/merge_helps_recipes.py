"""The merges that the benchmark tries: fixed recipes of every method, and a search over weights.

A method's record (as `modelyard merge methods --json` prints it) decides its recipes, so that a new
method takes part by itself. With mergekit as a stand-in the records are the constants below. Knows
neither the models nor how they are measured: a checkpoint's worth is a function that comes in.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from merge_helps_family import Family

DENSITIES = (0.2, 0.5)
DENSITY = 0.5  # where the weights are varied already
WEIGHTS = (0.6, 1.0)  # beside equal shares of 1
HIGHEST_SHARE = 2.5  # a search goes up to so many times the equal share of 1
# Required parameters, the same for all models; {} holds for every other method.
VALUES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "nearswap": {"t": (0.001, 0.01)},
    "": {"t": (0.5,)},
}
NORMALIZED = ("nuslerp",)  # by its formula, without a parameter that says so
WEIGHT = {"name": "weight", "default": None, "per_model": True}
DENSITY_RECORD = {"name": "density", "default": 1.0, "per_model": True}
STAND_IN_METHODS = (
    {"name": "linear", "base": "ignored", "models": "1 or more",
     "parameters": [WEIGHT, {"name": "normalize", "default": True, "per_model": False}]},
    {"name": "slerp", "base": "required", "models": "1",
     "parameters": [{"name": "t", "default": None, "per_model": False}]},
    {"name": "task_arithmetic", "base": "required", "models": "1 or more", "parameters": [WEIGHT]},
    {"name": "ties", "base": "required", "models": "1 or more",
     "parameters": [WEIGHT, DENSITY_RECORD, {"name": "normalize", "default": True, "per_model": False}]},
    {"name": "dare_linear", "base": "required", "models": "1 or more",
     "parameters": [WEIGHT, DENSITY_RECORD]},
    {"name": "dare_ties", "base": "required", "models": "1 or more", "parameters": [WEIGHT, DENSITY_RECORD]},
    {"name": "model_stock", "base": "required", "models": "2 or more", "parameters": []},
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """The program that merges."""

    path: Path
    # Whether it is modelyard; else it is mergekit-yaml.
    ours: bool

    @property
    def name(self) -> str:
        """What a report calls it."""
        return "modelyard" if self.ours else self.path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One merge, as mergekit's YAML writes it."""

    label: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quest:
    """A search over the weights of task arithmetic."""

    family: Family
    trials: int
    seed: int
    # The command that prints a checkpoint's loss; {merged} stands for the checkpoint.
    objective: str


def method_records(tool: Tool, skip: Sequence[str]) -> list[dict[str, Any]]:
    """The methods that the tool has, without those to skip."""
    records: Sequence[dict[str, Any]] = STAND_IN_METHODS
    if tool.ours:
        argv = [str(tool.path), "merge", "methods", "--json"]
        records = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return [record for record in records if record["name"] not in skip]


def recipes(record: Mapping[str, Any], family: Family, pair: tuple[str, str]) -> Iterator[Recipe]:
    """The fixed recipes of one method; none where it needs what the benchmark does not have.

    A method of two models gets `pair`; where it is a base and one model, the first is the base.
    """
    grid = parameter_grid(record, len(family.specialists))
    files = [family.home / f"{name}.grams.safetensors" for name in family.specialists]
    if any(p.get("kind") == "file" for p in record["parameters"]) and not all(f.exists() for f in files):
        return
    words = record["models"].split()
    least, most = int(words[0]), None if words[-1] == "more" else int(words[-1])
    if grid is None or least > len(family.specialists):
        return
    base, models = family.base, list(family.specialists)
    if most == 1:
        base, models = pair[0], [pair[1]]
    elif most is not None and most < len(models):
        models = list(pair)
    whose = " (the best two)" if most is not None and len(family.specialists) > most else ""
    for values in grid:
        told = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        yield Recipe(
            label=f"{record['name']}{whose} {told}".strip(),
            document=document(
                record, family.home, "" if record["base"] == "ignored" else base, models, values
            ),
        )


def parameter_grid(record: Mapping[str, Any], models: int) -> list[dict[str, float]] | None:
    """The combinations of values to try, or None where a required parameter has no values here."""
    parameters = {parameter["name"]: parameter for parameter in record["parameters"]}
    normalized = record["name"] in NORMALIZED or any(
        name.startswith("normalize") and parameter["default"] is True
        for name, parameter in parameters.items()
    )
    axes: dict[str, tuple[float, ...]] = {}
    if "weight" in parameters:
        axes["weight"] = (1.0,) if normalized else (1 / models, *WEIGHTS)
    if "density" in parameters:
        axes["density"] = DENSITIES if len(axes.get("weight", (1.0,))) == 1 else (DENSITY,)
    for name, parameter in parameters.items():
        if parameter["default"] is None and name not in axes and parameter.get("kind") != "file":
            given = VALUES.get(record["name"], VALUES[""])
            if name not in given:
                return None
            axes[name] = given[name]
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def document(
    record: Mapping[str, Any], home: Path, base: str, models: Sequence[str], values: Mapping[str, float]
) -> dict[str, Any]:
    """The recipe's text as data; computed and stored in float32, so that rounding plays no part."""
    each = {p["name"] for p in record["parameters"] if p["per_model"]}
    own = {name: value for name, value in values.items() if name in each}
    shared = {name: value for name, value in values.items() if name not in each}
    beside = [p["name"] for p in record["parameters"] if p.get("kind") == "file"]
    entries = []
    for name in models:
        told = {**own, **dict.fromkeys(beside, str(home / f"{name}.grams.safetensors"))}
        entries.append({"model": str(home / name)} | ({"parameters": told} if told else {}))
    whole: dict[str, Any] = {"merge_method": record["name"], "dtype": "float32", "models": entries}
    if base:
        whole["base_model"] = str(home / base)
        if record["models"] == "1":  # mergekit wants both of a pair listed
            whole["models"] = [{"model": str(home / base)}, *entries]
    if shared:
        whole["parameters"] = shared
    return whole


def average(family: Family, names: Sequence[str]) -> Recipe:
    """The plain average of some checkpoints."""
    values = {"weight": 1.0}
    return Recipe(
        label=f"average of {' and '.join(names)}",
        document=document(STAND_IN_METHODS[0], family.home, "", names, values),
    )


def weighted(family: Family, weights: Sequence[float]) -> dict[str, Any]:
    """Task arithmetic with a weight for each specialist."""
    whole = document(STAND_IN_METHODS[2], family.home, family.base, family.specialists, {"weight": 0.0})
    for entry, weight in zip(whole["models"], weights, strict=True):
        entry["parameters"] = {"weight": float(weight)}
    return whole


def text(whole: Mapping[str, Any]) -> str:
    """A recipe as YAML, a line for each key at the top; the values are in JSON, which is YAML too."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in whole.items())


def merge(tool: Tool, whole: Mapping[str, Any], out: Path, seed: int) -> None:
    """Merge into the folder `out`, which must not be there; `seed` is of methods that drop at random."""
    config = out.with_suffix(".yml")
    config.write_text(text(whole))
    if tool.ours:
        argv = [str(tool.path), "merge", "run", str(config), str(out), "--seed", str(seed), "--json"]
    else:
        argv = [str(tool.path), str(config), str(out), "--random-seed", str(seed), "--quiet"]
    run(argv)


def search(tool: Tool, quest: Quest, out: Path, worth: Callable[[Mapping[str, Any]], float]) -> str:
    """Search for weights, leave the best merge in `out`, and tell which they are.

    The stand-in has no search: there the weights are drawn at random, after the fixed ones, and
    `worth` is the loss of a recipe.
    """
    if tool.ours:
        return own_search(tool, quest, out)
    count = len(quest.family.specialists)
    drawn = np.random.default_rng(quest.seed).uniform(0, HIGHEST_SHARE / count, (quest.trials, count))
    fixed = np.array(starts(count))[: len(drawn), None]
    drawn[: len(fixed)] = fixed
    losses = [worth(weighted(quest.family, weights)) for weights in drawn]
    found = drawn[int(np.argmin(losses))]
    merge(tool, weighted(quest.family, found), out, quest.seed)
    return ", ".join(f"{weight:.2f}" for weight in found)


def starts(models: int) -> list[float]:
    """The weights of the fixed recipes, as far as a search goes."""
    return [weight for weight in (1 / models, *WEIGHTS) if weight <= HIGHEST_SHARE / models]


def own_search(tool: Tool, quest: Quest, out: Path) -> str:
    """`modelyard merge search` over the same weights, the fixed ones first."""
    keys = [f"models.{i}.parameters.weight" for i in range(len(quest.family.specialists))]
    fixed = [dict.fromkeys(keys, weight) for weight in starts(len(keys))]
    ranges = {key: {"low": 0.0, "high": HIGHEST_SHARE / len(keys)} for key in keys}
    space = {**weighted(quest.family, [0.5] * len(keys)), "search": {**ranges, "start": fixed}}
    config = out.with_suffix(".yml")
    config.write_text(text(space))
    argv = [str(tool.path), "merge", "search", str(config), str(out), "--objective", quest.objective]
    argv += [
        "--trials",
        str(quest.trials),
        "--seed",
        str(quest.seed),
        "--yard",
        str(out.with_suffix(".yard")),
    ]
    run([*argv, "--json"])
    best = json.loads((out / "search.json").read_text())["best"]
    return ", ".join(f"{best['assignments'][key]:.2f}" for key in keys)


def soup(tool: Tool, family: Family, out: Path, command: str) -> dict[str, Any]:
    """`modelyard merge soup` of the base and the specialists into `out`; its record."""
    config = out.with_suffix(".yml")
    models = [{"model": str(family.home / name)} for name in family.parents]
    config.write_text(text({"merge_method": "linear", "dtype": "float32", "models": models}))
    yard = str(out.with_suffix(".yard"))
    run([str(tool.path), "merge", "soup", str(config), str(out), "--objective", command, "--yard", yard])
    record: dict[str, Any] = json.loads((out / "search.json").read_text())
    return record


def objective(script: Path, metric: str) -> str:
    """The command that prints the loss of {merged} on the data for choosing."""
    words = [sys.executable, str(script), "evaluate", "{merged}", "--split", "val", "--metric", metric]
    return shlex.join(words).replace("'{merged}'", "{merged}")


def run(argv: Sequence[str]) -> None:
    """Run a command; where it fails, stop with the last that it said."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(argv)} ended with {done.returncode}: {done.stderr[-1500:]}")
