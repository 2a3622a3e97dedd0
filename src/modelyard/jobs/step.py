"""Steps: what takes time, as an argument vector with inputs, declared outputs and resources.

A step is a plain record: it knows neither where it will run nor what it is for. Its digest covers
what it does; two runs of one plan in two folders have the same step digests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from modelyard.core.digests import canonical_json, digest_bytes
from modelyard.core.redaction import redacted

#: One or more words joined by slashes; each begins with a letter or digit, so that no name leaves its folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")

#: Fields that do not change what a step does.
_SILENT = frozenset({"name", "required", "member", "retries", "backoff_s", "backend"})


def is_name(text: str) -> bool:
    """Whether the text can name a step or a model: safe as a folder's name, never `..`."""
    return NAME.fullmatch(text) is not None and len(text) <= 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a step needs while it runs; the local backend holds it back until so much is free."""

    nodes: int = 1
    cpus: int = 1
    gpus: int = 0
    memory_gib: float = 0.0
    wall_time_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A file or folder that a step promises; `kind` chooses the check beyond "there and not empty"."""

    path: str
    kind: str = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of a plan."""

    # Unique in its plan; also the folder of its logs.
    name: str
    # The command, already split and substituted; with `shell` one string for `sh -c`.
    argv: tuple[str, ...]
    shell: bool = False
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    # Names of variables handed over from the environment, never written to any file.
    secrets: tuple[str, ...] = ()
    image: str | None = None
    backend: str = "local"
    # Files that must exist before; made by another step or present already.
    inputs: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    # Steps that must have SUCCEEDED before.
    needs: tuple[str, ...] = ()
    # Steps that must have ended before, however they ended.
    after: tuple[str, ...] = ()
    resources: Resources = Resources()
    retries: int = 0
    backoff_s: float = 1.0
    timeout_s: float | None = None
    seed: int | None = None
    # The pool member that this step belongs to; None for the work of the pool as a whole.
    member: str | None = None
    # False where the step may fail without the run counting as failed.
    required: bool = True


def step_record(step: Step) -> dict[str, Any]:
    """The step as a JSON value, fit for `step_from`; the values of secrets are left out."""
    record = {name: getattr(step, name) for name in Step.__dataclass_fields__}
    for name in ("argv", "secrets", "inputs", "needs", "after"):
        record[name] = list(record[name])
    return {
        **record,
        "env": redacted(step.env, step.secrets),
        "outputs": [{"path": output.path, "kind": output.kind} for output in step.outputs],
        "resources": {name: getattr(step.resources, name) for name in Resources.__dataclass_fields__},
    }


def step_from(record: Mapping[str, Any]) -> Step:
    """The step that `step_record` wrote, read back from JSON."""
    lists = ("argv", "secrets", "inputs", "needs", "after")
    return Step(
        **{
            **record,
            **{name: tuple(record[name]) for name in lists},
            "outputs": tuple(Output(**output) for output in record["outputs"]),
            "resources": Resources(**record["resources"]),
        }
    )


def step_digest(step: Step, *, run_dir: str) -> str:
    """What the step does, as a digest in which the run's own folder is not seen.

    Fields at their default are left out, so that a field which is new leaves old digests alone.
    """
    record = step_record(step)
    said = {name: value for name, value in record.items() if name not in _SILENT and value != _blank()[name]}
    return digest_bytes(_folder(run_dir).sub(b"{run_dir}", canonical_json(said)))


@lru_cache(maxsize=8)
def _folder(run_dir: str) -> re.Pattern[bytes]:
    """The folder and what lies in it as canonical JSON has them: /runs/a is no part of /runs/a-data."""
    return re.compile(re.escape(canonical_json(run_dir)[1:-1]) + rb"(?![\w.-])")


@cache
def _blank() -> dict[str, Any]:
    return step_record(Step(name="", argv=(), cwd=""))
