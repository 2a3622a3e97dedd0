"""Workloads: how a trial becomes a step, and where what it reports is found.

`CommandWorkload` is a person's own command with the values put in: as `--name value` words, one by one,
in a JSON file, or merged into a configuration file of theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from modelyard.core.files import write_json, write_whole
from modelyard.jobs.command import render_argv, render_shell
from modelyard.jobs.step import Resources, Step

#: Where a training script may write what it measures, one JSON value a line.
METRICS_VARIABLE = "MODELYARD_METRICS"
#: That file in a trial's folder.
METRICS_FILE = "metrics.jsonl"
#: What stands in a command under these names is not a parameter's value.
OWN_PLACEHOLDERS = (
    "python", "trial", "trial_dir", "params_json", "seed", "budget", "config", "parent_dir",
)  # fmt: skip
_ALL = "{params}"
#: The parts of a dotted name: `a[0].b` is a, [0], b.
_PART = re.compile(r"\[\d+\]|[^.\[\]]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a workload is to run: a configuration with a seed, in a folder of its own."""

    name: str
    folder: Path
    assignments: Mapping[str, Any]
    seed: int
    number: int
    budget: int | None = None
    # The folder of the trial from whose checkpoint this one goes on.
    parent: Path | None = None


class Workload(Protocol):
    """Makes steps of trials."""

    def step(self, attempt: Attempt) -> Step:
        """The step of an attempt, the same each time; what it reads is written first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandWorkload:
    """A command template; see `placeholders` for what may stand in it."""

    command: str
    cwd: Path
    python: str
    shell: bool = False
    # A YAML or JSON file into which the values are merged by their dotted names.
    config: Path | None = None
    # The same, given as it stands in such a file.
    specification: Mapping[str, Any] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    # Files and folders that must be there before anything is made.
    inputs: tuple[str, ...] = ()
    image: str | None = None
    resources: Resources = Resources()
    timeout_s: float | None = None
    retries: int = 0

    def step(self, attempt: Attempt) -> Step:
        """Write params.json, and the merged configuration, and render the command."""
        write_json(attempt.folder / "params.json", dict(attempt.assignments))
        base = self.specification if self.config is None else _read(self.config)
        if base is not None:
            merged = merged_config(base, attempt.assignments)
            write_whole(self._config_path(attempt), _dump(merged, self.config))
        render = render_shell if self.shell else render_argv
        values = self.placeholders(attempt)
        return Step(
            name=attempt.name,
            argv=render(expanded(self.command, attempt.assignments), values),
            shell=self.shell, cwd=str(self.cwd), secrets=self.secrets, inputs=self.inputs, image=self.image,
            env={**self.env, METRICS_VARIABLE: str(attempt.folder / METRICS_FILE)},
            resources=self.resources, retries=self.retries, timeout_s=self.timeout_s, seed=attempt.seed,
        )  # fmt: skip

    def placeholders(self, attempt: Attempt) -> dict[str, object]:
        """What may stand in the command: every active parameter by its name, and these."""
        own: dict[str, object] = {
            "python": self.python,
            "trial": attempt.number,
            "trial_dir": attempt.folder,
            "params_json": attempt.folder / "params.json",
            "seed": attempt.seed,
        }
        if attempt.budget is not None:
            own["budget"] = attempt.budget
        if self.config is not None or self.specification is not None:
            own["config"] = self._config_path(attempt)
        own["parent_dir"] = attempt.parent or ""
        return {**{identifier(n): shown(v) for n, v in attempt.assignments.items()}, **own}

    def _config_path(self, attempt: Attempt) -> Path:
        suffix = self.config.suffix if self.config is not None else ".yaml"
        return attempt.folder / f"config{suffix}"


def identifier(name: str) -> str:
    """A parameter's name as it stands between braces: `train.optim.lr` is `{train_optim_lr}`."""
    return re.sub(r"\W", "_", name)


def expanded(command: str, assignments: Mapping[str, Any]) -> str:
    """The command with `{params}` replaced by `--name {name}` for every active parameter."""
    words = " ".join(f"--{name} {{{identifier(name)}}}" for name in assignments)
    return command.replace(_ALL, words)


def shown(value: Any) -> str:
    """A value as a command sees it: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def merged_config(config: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the configuration with each value at its dotted place; `a[0].b` goes into a list.

    Raises:
        ValueError: A place leads through something that holds nothing.
    """
    merged: dict[str, Any] = _copied(config)
    for name, value in assignments.items():
        _set(merged, name, value)
    return merged


def _copied(value: Any) -> Any:
    """A copy in which nothing is shared, as aliases in YAML are."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _set(config: Any, name: str, value: Any) -> None:
    *path, last = _PART.findall(name)
    at = config
    for part in path:
        at = _item(at, part, name)
    _item(at, last, name)
    at[int(last.strip("[]")) if isinstance(at, list) else last] = value


def _item(at: Any, part: str, name: str) -> Any:
    """What stands at one place; a mapping gets a new one where nothing does."""
    if isinstance(at, dict) and not part.startswith("["):
        if at.get(part) is None:
            at[part] = {}
        return at[part]
    index = part.strip("[]")
    if isinstance(at, list) and index.isdigit() and int(index) < len(at):
        return at[int(index)]
    raise ValueError(f"{name}: {part!r} is in something that holds no such place")


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if data is not None and not isinstance(data, dict):
        raise ValueError(f"{path}: holds no mapping")
    return data or {}


def _dump(config: Mapping[str, Any], path: Path | None) -> str:
    if path is not None and path.suffix == ".json":
        return json.dumps(config, indent=2) + "\n"
    return yaml.safe_dump(dict(config), sort_keys=False)
