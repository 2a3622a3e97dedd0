"""Plans: steps in an order that can run, checked as a whole before anything does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults
from modelyard.jobs.backend import Backend
from modelyard.jobs.step import Step, is_name, step_digest, step_from, step_record

SCHEMA = "modelyard.plan/1"
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps in an order in which each comes after what it waits for."""

    name: str
    run_dir: str
    steps: tuple[Step, ...]

    @property
    def digest(self) -> str:
        """What the plan does, whatever folder it runs in."""
        return digest_json([[s.name, step_digest(s, run_dir=self.run_dir)] for s in self.steps])

    def step(self, name: str) -> Step:
        """The step with this name; `KeyError` when there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)


def make_plan(name: str, steps: Iterable[Step], *, run_dir: Path, faults: Faults) -> Plan:
    """Order the steps, with a need for every input that another step leaves.

    Raises:
        DocumentError: Two steps share a name or an output, a need is unknown, or the needs go in
            a circle. Faults of this machine are left for the caller to judge.
    """
    given = list(steps)
    _check_names(given, faults)
    wired = _wired(given, faults)
    ordered = _ordered(wired, faults)
    lasting = [fault for fault in faults.found if not fault.here]
    if lasting:
        raise DocumentError(lasting)
    return Plan(name=name, run_dir=str(run_dir), steps=tuple(ordered))


def check_machine(plan: Plan, backend: Backend, *, faults: Faults, disk_gib: float, path: str | None) -> None:
    """Note what this machine lacks: inputs, programs, slots, variables, disk.

    Args:
        plan: What would run.
        backend: What would run it.
        faults: Where to note; every fault is marked `here`.
        disk_gib: Free space wanted on the file system of the run.
        path: The PATH on which programs are looked for.
    """
    _check_inputs(plan, faults)
    runnable = cache(_is_runnable)
    for step in plan.steps:
        if (
            not step.shell
            and step.image is None
            and not runnable(step.argv[0], step.cwd, step.env.get("PATH", path))
        ):
            remedy = "install it, or give its path"
            faults.add(_key(step, "argv"), step.argv[0], "is not an executable here", remedy, here=True)
        reason = backend.fits(step.resources)
        if reason:
            remedy = "change the resources or the backend"
            faults.add(_key(step, "resources"), None, reason, remedy, here=True)
        for secret in step.secrets:
            if secret not in os.environ:
                faults.add(
                    _key(step, "secrets"), secret, "is not set", "export the variable first", here=True
                )
    _check_disk(Path(plan.run_dir), disk_gib, faults)


def plan_record(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON value."""
    return {
        "schema": SCHEMA,
        "name": plan.name,
        "digest": plan.digest,
        "run_dir": plan.run_dir,
        "steps": [step_record(step) for step in plan.steps],
    }


def plan_from(record: Mapping[str, Any]) -> Plan:
    """The plan that `plan_record` wrote."""
    return Plan(
        name=record["name"], run_dir=record["run_dir"], steps=tuple(step_from(s) for s in record["steps"])
    )


def _key(step: Step, field: str) -> str:
    return f"{step.name}.{field}"


def _check_names(steps: Sequence[Step], faults: Faults) -> None:
    seen: dict[str, Step] = {}
    owners: dict[str, str] = {}
    for step in steps:
        if not is_name(step.name):
            faults.add(
                "steps",
                step.name,
                "is not a name",
                "use letters, digits, '.', '_', '-'; begin with one of the first two",
            )
        if step.name in seen:
            faults.add("steps", step.name, "names two steps", "rename one of them")
        seen[step.name] = step
        for output in step.outputs:
            other = owners.setdefault(output.path, step.name)
            if other != step.name:
                faults.add(
                    _key(step, "outputs"),
                    output.path,
                    f"is also left by {other}",
                    "give each step its own file",
                )


def _wired(steps: Sequence[Step], faults: Faults) -> dict[str, Step]:
    """Steps by name, needs completed by the makers of inputs; unknown needs are faults."""
    makers = {output.path: step.name for step in steps for output in step.outputs}
    names = {step.name for step in steps}
    wired = {}
    for step in steps:
        for field in ("needs", "after"):
            for need in getattr(step, field):
                if need not in names:
                    faults.add(
                        _key(step, field),
                        need,
                        "is not a step of this plan",
                        "correct the name or add the step",
                    )
        made = (makers[path] for path in step.inputs if path in makers)
        # Who is waited for softly may fail: its file is then read if it is there.
        needs = dict.fromkeys([*step.needs, *(m for m in made if m != step.name and m not in step.after)])
        own = {output.path for output in step.outputs}  # what a step leaves is not what it waits for
        inputs = tuple(path for path in dict.fromkeys(step.inputs) if path not in own)
        changed = inputs != step.inputs or tuple(needs) != step.needs
        wired[step.name] = replace(step, inputs=inputs, needs=tuple(needs)) if changed else step
    return wired


def _ordered(steps: Mapping[str, Step], faults: Faults) -> list[Step]:
    position = {name: i for i, name in enumerate(steps)}
    graph = {name: [n for n in (*s.needs, *s.after) if n in steps] for name, s in steps.items()}
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        path = " -> ".join(reversed(error.args[1]))
        faults.add("steps", None, f"the needs go in a circle: {path}", "remove one of these needs")
        return []
    ordered: list[Step] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        ordered.extend(steps[name] for name in ready)
        sorter.done(*ready)
    return ordered


def _check_inputs(plan: Plan, faults: Faults) -> None:
    made = {output.path for step in plan.steps for output in step.outputs}
    exists = cache(lambda path: Path(path).exists())
    for step in plan.steps:
        for wanted in step.inputs:
            if wanted not in made and not exists(wanted):
                remedy = "make it, or correct the path"
                faults.add(_key(step, "inputs"), wanted, "does not exist", remedy, here=True)


def _is_runnable(program: str, cwd: str, path: str | None) -> bool:
    if "/" in program:
        place = Path(cwd, program)
        return place.is_file() and os.access(place, os.X_OK)
    return shutil.which(program, path=path) is not None


def _check_disk(folder: Path, wanted_gib: float, faults: Faults) -> None:
    while not folder.exists():
        folder = folder.parent
    free_gib = shutil.disk_usage(folder).free / _GIB
    if free_gib < wanted_gib:
        remedy = "free some, or use a run directory on another disk"
        faults.add(
            "run_dir",
            str(folder),
            f"has {free_gib:.2f} GiB free where {wanted_gib:g} are wanted",
            remedy,
            here=True,
        )
