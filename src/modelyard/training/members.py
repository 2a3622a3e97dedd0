"""Members of a pool: how one model's commands are declared, and the steps that they become.

ELPA's JSON and yard.yaml declare members alike; both are read here. A member's commands are
templates; `Scope` holds what their placeholders stand for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults, Section
from modelyard.core.processes import interpreter
from modelyard.jobs.command import check_command, check_placeholders, fill, render_argv, render_shell
from modelyard.jobs.step import Output, Resources, Step, is_name

GROUPS = ("online", "offline")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What a placeholder stands for that is each member's own.
MEMBER_NAMES = ("model_dir", "model_name")
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a command may behave, whatever it does."""

    resources: Resources = Resources()
    retries: int = 0
    backoff_s: float = 1.0
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model of the pool."""

    name: str
    group: str
    enabled: bool = True
    required: bool = True
    # Command templates; empty where the member has no such command.
    train: str = ""
    predict: str = ""
    shell: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    # Templates of paths by kind: `model`, `predictions` and whatever else the member leaves.
    outputs: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    # Templates of files that its commands read beside the script and the data, such as shared modules.
    inputs: tuple[str, ...] = ()
    # Where it stands in its document, for messages.
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a document's commands run, and what its placeholders stand for."""

    # Folder of the document: the commands' working directory, and what relative paths start from.
    folder: Path
    run_dir: Path
    values: Mapping[str, Scalar]
    # Names of `values` that are input files; a command that uses one needs it.
    datasets: tuple[str, ...]

    def model_dir(self, member: str) -> Path:
        """Where a member leaves its files."""
        return self.run_dir / "models" / member

    def of(self, member: str) -> dict[str, Scalar]:
        """The values as one member sees them."""
        return {**self.values, "model_dir": f"{self.run_dir}/models/{member}", "model_name": member}

    def absolute(self, path: str) -> str:
        """A path of the document, resolved against its folder; URLs stay as they are."""
        return path if "://" in path else os.path.normpath(self.folder.absolute() / Path(path).expanduser())


def read_member(section: Section, *, train_key: str, extra: bool) -> Member:
    """Read one model of a document, noting every fault.

    Args:
        section: The model's mapping.
        train_key: What the document calls the training command (`train_cmd` or `train`).
        extra: Whether `predict` and named outputs belong to the format.
    """
    name = section.text("name")
    if name and (not is_name(name) or "/" in name):
        section.faults.add(
            section.key("name"), name, "cannot name a folder of the run",
            "use letters, digits, '.', '_', '-'; begin with a letter or digit",
        )  # fmt: skip
    member = Member(
        name=name,
        group=section.choice("group", "online", GROUPS),
        enabled=section.flag("enabled", default=True),
        required=section.flag("required", default=True),
        # An ELPA model must have its command; a member of a yard may come trained already.
        train=(section.optional_text(train_key) or "") if extra else section.text(train_key),
        predict=(section.optional_text("predict") or "") if extra else "",
        shell=section.flag("shell", default=False),
        env={k: str(v) for k, v in section.scalars("env").items()},
        secrets=section.texts("secrets"),
        outputs={k: str(v) for k, v in section.scalars("outputs").items()},
        inputs=section.texts("inputs"),
        limits=read_limits(section),
        key=section.path,
    )
    section.close()
    return member


def read_limits(section: Section) -> Limits:
    """Retries, timeout and resources of a command."""
    needs = section.section("resources")
    resources = Resources(
        nodes=needs.integer("nodes", 1, low=1),
        cpus=needs.integer("cpus", 1, low=1),
        gpus=needs.integer("gpus", 0, low=0),
        memory_gib=needs.number("memory_gib", 0.0, above=0.0) if needs.has("memory_gib") else 0.0,
        wall_time_s=needs.number("wall_time_s", None, above=0.0) if needs.has("wall_time_s") else None,
    )
    for name in ("nodes", "cpus", "gpus", "memory_gib", "wall_time_s"):
        needs.raw(name)
    needs.close()
    timeout_s = section.number("timeout_s", None, above=0.0) if section.has("timeout_s") else None
    section.raw("timeout_s")
    return Limits(
        resources=resources,
        retries=section.integer("retries", 0, low=0, high=100),
        backoff_s=section.number("backoff_s", 1.0, above=0.0),
        timeout_s=timeout_s,
    )


def check_members(members: list[Member], scope: Scope, faults: Faults, *, train_key: str = "train") -> None:
    """Note duplicate names, and commands and paths that cannot be rendered; keys as in `read_member`."""
    seen: dict[str, str] = {}
    given = {scope.values[name] for name in (*scope.datasets, "truth") if name in scope.values}
    for member in members:
        folded = member.name.casefold()
        if folded and folded in seen:
            remedy = f"rename one: {seen[folded]} and {member.key} would share a folder"
            faults.add(f"{member.key}.name", member.name, "names two models", remedy)
        seen.setdefault(folded, member.key)
        known = scope.of(member.name)
        for part, template in ((train_key, member.train), ("predict", member.predict)):
            if template:
                key = f"{member.key}.{part}"
                check_command(template, key=key, shell=member.shell, known=known, faults=faults)
        for name, path in member.outputs.items():
            key = f"{member.key}.outputs.{name}"
            check_placeholders(path, key=key, known=known, faults=faults)
            if scope.absolute(fill(path, known)) in given:
                faults.add(
                    key, path, "is a data file of the document", "let the member leave a file of its own"
                )
        for variable in member.env:
            if not _VARIABLE.fullmatch(variable):
                remedy = "use letters, digits and '_'; begin with a letter or '_'"
                faults.add(f"{member.key}.env", variable, "cannot name a variable", remedy)
        for place, path in enumerate(member.inputs):
            check_placeholders(path, key=f"{member.key}.inputs[{place}]", known=known, faults=faults)


def member_step(
    member: Member, part: str, scope: Scope, outputs: tuple[Output, ...], needs: tuple[str, ...]
) -> Step:
    """The step of one command (`train` or `predict`) of a member."""
    template = member.train if part == "train" else member.predict
    values = scope.of(member.name)
    argv = render_shell(template, values) if member.shell else render_argv(template, values)
    declared = (scope.absolute(fill(path, values)) for path in member.inputs)
    seed = scope.values.get("seed")
    return Step(
        name=f"{part}/{member.name}",
        member=member.name,
        argv=argv,
        shell=member.shell,
        cwd=str(scope.folder),
        env=member.env,
        secrets=member.secrets,
        inputs=(*used_files(template, scope), *script_of(argv, scope), *declared),
        outputs=outputs,
        needs=needs,
        resources=member.limits.resources,
        retries=member.limits.retries,
        backoff_s=member.limits.backoff_s,
        timeout_s=member.limits.timeout_s,
        seed=seed if isinstance(seed, int) else None,
        required=member.required,
    )


def member_outputs(member: Member, scope: Scope) -> dict[str, Output]:
    """The member's declared outputs by name; the name is also the kind that they are checked as."""
    values = scope.of(member.name)
    return {
        name: Output(path=scope.absolute(fill(path, values)), kind=name)
        for name, path in member.outputs.items()
    }


def make_folders(members: Sequence[Member], scope: Scope) -> None:
    """Make the folder of every enabled member."""
    for member in members:
        if member.enabled:
            scope.model_dir(member.name).mkdir(parents=True, exist_ok=True)


def used_files(template: str, scope: Scope) -> tuple[str, ...]:
    """The input files of the document that a command names; what a URL names is not looked for here."""
    used = dict.fromkeys(str(scope.values[name]) for name in scope.datasets if f"{{{name}}}" in template)
    return tuple(path for path in used if "://" not in path)


def script_of(argv: tuple[str, ...], scope: Scope) -> tuple[str, ...]:
    """The script that an interpreter is given, so that a missing one is found before anything runs."""
    if len(argv) > 1 and argv[1].endswith((".py", ".sh", ".R", ".jl")) and not argv[1].startswith("-"):
        return (scope.absolute(argv[1]),)
    return ()


def base_values(run_dir: Path, folder: Path) -> dict[str, Scalar]:
    """What every document may name."""
    return {
        "python": interpreter(),
        "run_dir": str(run_dir),
        "data_dir": str(run_dir / "data"),
        "yard_dir": str(folder),
    }


def twins(files: Mapping[str, str]) -> dict[str, str]:
    """`dataset` and `train_dataset` are two names of one file: what a missing one stands for."""
    names = ("dataset", "train_dataset")
    return {
        name: files[other] for name, other in (names, names[::-1]) if name not in files and other in files
    }


def scalars_only(data: Mapping[str, Any]) -> dict[str, Scalar]:
    """The entries of a mapping that a placeholder can stand for."""
    return {k: v for k, v in data.items() if isinstance(v, str | int | float | bool)}
