"""yard.yaml: the one file that declares a pool, read and checked as a whole."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.digests import digest_json
from modelyard.core.faults import Faults, Section
from modelyard.jobs.command import check_command, fill
from modelyard.jobs.step import is_name
from modelyard.training.members import (
    Limits,
    Member,
    Scalar,
    Scope,
    base_values,
    check_members,
    read_limits,
    read_member,
)

SCHEMA = "modelyard.yard/1"
METHODS = ("auto", "boa", "inverse_score")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A command that makes data before any member trains."""

    name: str
    run: str
    shell: bool
    outputs: tuple[str, ...]
    limits: Limits
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """How the policy is built. `None` for epsilon means: estimated from the validation rows."""

    method: str
    beta: float
    dirty_interval: int
    amplitude_window: int
    mutant_epsilon: float | None
    validation_until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One yard.yaml."""

    path: Path
    name: str
    # Names the run: a changed file is another run.
    digest: str
    horizon: int
    period: int
    step_s: float
    seed: int
    truth: str
    preparations: tuple[Preparation, ...]
    members: tuple[Member, ...]
    ensemble: EnsembleSettings
    continue_on_error: bool
    disk_gib: float
    scope: Scope


def document_digest(path: Path) -> tuple[str, str]:
    """The yard's name and the digest of what its file says (comments and layout apart).

    Raises:
        DocumentError: The file is not YAML, or does not name the yard.
    """
    faults = Faults(file=str(path))
    document = _load(path, faults)
    name = Section(document, faults=faults).text("name")
    if name and not is_name(name):
        faults.add("name", name, "cannot name a folder", "use letters, digits, '.', '_', '-'")
    faults.raise_if_any()
    return name, digest_json(_plain(document))


def read_declaration(path: Path, run_dir: Path) -> Declaration:
    """Read a yard.yaml.

    Args:
        path: The file; relative paths in it start from its folder.
        run_dir: Where this run's files go.

    Raises:
        DocumentError: With every fault of the file.
    """
    name, digest = document_digest(path)
    faults = Faults(file=str(path))
    section = Section(_load(path, faults), faults=faults)
    section.choice("schema", SCHEMA, [SCHEMA])
    section.raw("name")
    horizon = section.integer("horizon", None, low=1, high=10_000)
    period = section.integer("period", 24, low=1)
    seed = section.integer("seed", 42, low=0)
    numbers = {"horizon": horizon, "period": period, "seed": seed}
    scope, truth = _read_scope(section, path.absolute().parent, run_dir, numbers)
    members = [read_member(item, train_key="train", extra=True) for item in section.sections("models")]
    preparations = tuple(_read_preparation(item) for item in section.sections("prepare"))
    declaration = Declaration(
        path=path,
        name=name,
        digest=digest,
        horizon=horizon,
        period=period,
        step_s=_read_duration(section, "step"),
        seed=seed,
        truth=truth,
        preparations=preparations,
        members=tuple(members),
        ensemble=_read_ensemble(section.section("ensemble")),
        continue_on_error=section.choice("on_error", "stop", ["stop", "continue"]) == "continue",
        disk_gib=section.number("disk_gib", 1.0, above=0.0),
        scope=scope,
    )
    section.close()
    _check(declaration, faults)
    faults.raise_if_any()
    return declaration


def _read_scope(
    section: Section, folder: Path, run_dir: Path, numbers: Mapping[str, Scalar]
) -> tuple[Scope, str]:
    """The placeholders, and the template of the truth's path resolved."""
    base = base_values(run_dir, folder)
    context = section.scalars("context")
    for name in context:
        if name in base or name in numbers:
            section.faults.add(
                f"context.{name}", context[name], "is a name of modelyard's own", "choose another name"
            )
    bare = Scope(folder=folder, run_dir=run_dir, values={}, datasets=())
    data = section.section("data")
    files = {k: bare.absolute(fill(str(v), {**context, **base})) for k, v in data.rest().items()}
    truth = files.pop("truth", "")
    if not truth:
        section.faults.add("data.truth", None, "is missing", "give the file with columns target_time and y")
    if "dataset" in files:
        files["train_dataset"] = files["dataset"]
    scope = Scope(
        folder=folder,
        run_dir=run_dir,
        values={**context, **files, "truth": truth, **numbers, **base},
        datasets=tuple(files),
    )
    return scope, truth


def _read_preparation(section: Section) -> Preparation:
    preparation = Preparation(
        name=section.text("name"),
        run=section.text("run"),
        shell=section.flag("shell", default=False),
        outputs=section.texts("outputs"),
        limits=read_limits(section),
        key=section.path,
    )
    section.close()
    return preparation


def _read_ensemble(section: Section) -> EnsembleSettings:
    until = section.raw("validation_until")
    if isinstance(until, datetime):
        until = until.isoformat()
    try:
        moment = datetime.fromisoformat(str(until))
    except ValueError:
        remedy = "write an ISO 8601 time: earlier truth teaches the policy, later truth tests it"
        section.faults.add(section.key("validation_until"), until, "is not a time", remedy)
        moment = datetime.fromtimestamp(0, UTC)
    epsilon = section.number("mutant_epsilon", None, above=0.0) if section.has("mutant_epsilon") else None
    section.raw("mutant_epsilon")
    settings = EnsembleSettings(
        method=section.choice("method", "auto", METHODS),
        beta=section.number("beta", 0.99, above=0.0, below=1.0),
        dirty_interval=section.integer("dirty_interval", 3, low=0),
        amplitude_window=section.integer("amplitude_window", 24, low=1),
        mutant_epsilon=epsilon,
        validation_until=(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat(),
    )
    section.close()
    return settings


def _read_duration(section: Section, name: str) -> float:
    text = section.text(name, "1h")
    match = _DURATION.fullmatch(text)
    if match and float(match[1]) > 0:
        return float(match[1]) * _SECONDS[match[2]]
    section.faults.add(
        section.key(name), text, "is not a duration", "write a number and s, min, h or d, such as 30min"
    )
    return 3600.0


def _check(declaration: Declaration, faults: Faults) -> None:
    members = list(declaration.members)
    check_members(members, declaration.scope, faults)
    if not any(member.enabled for member in members):
        faults.add("models", None, "has no enabled model", "declare at least one")
    for member in members:
        if not member.predict:
            faults.add(
                f"{member.key}.predict",
                None,
                "is missing",
                "give the command that writes the member's forecasts",
            )
        if "predictions" not in member.outputs:
            remedy = "give the file that the predict command writes"
            faults.add(f"{member.key}.outputs.predictions", None, "is missing", remedy)
    for preparation in declaration.preparations:
        if not is_name(preparation.name):
            faults.add(
                f"{preparation.key}.name",
                preparation.name,
                "is not a name",
                "use letters, digits, '.', '_', '-'",
            )
        check_command(
            preparation.run,
            key=f"{preparation.key}.run",
            shell=preparation.shell,
            known=declaration.scope.values,
            faults=faults,
        )


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping",
                    node.start_mark,
                    f"the key {key!r} stands twice",
                    key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _load(path: Path, faults: Faults) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        faults.add("", None, "does not exist", "give the path of the file, or make one with `modelyard init`")
    except UnicodeDecodeError as error:
        faults.add("", None, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        faults.add(place, None, f"is not YAML ({error.problem})", "correct the file there")
    except OSError as error:
        faults.add("", None, f"cannot be read ({error.strerror})", "mend its permissions")
    faults.raise_if_any()
    return {}


def _plain(value: Any) -> Any:
    """The document as JSON: YAML's dates become text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
