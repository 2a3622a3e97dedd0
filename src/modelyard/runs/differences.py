"""What differs between two runs: commands, what they read, what they left, how they ended.

Read from plans and the journal; what a path says of its own run's folder is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelyard.jobs.progress import Progress, StepProgress
from modelyard.jobs.step import step_record
from modelyard.runs.directory import open_run
from modelyard.runs.index import RunRow
from modelyard.runs.view import replayed, view_run
from modelyard.runs.yard import Yard

_HERE = "{run_dir}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not the same; None where a run has nothing of it."""

    step: str
    # declared: what the plan says; input, output: the digest of a file; status; seconds.
    what: str
    # The field, or the path as its run's folder has it.
    where: str
    before: Any
    after: Any

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One side of the comparison."""

    progress: Progress
    folder: str
    # Digests of outputs by step and path.
    outputs: Mapping[tuple[str, str], str]
    # How steps ended, by name, as people see it.
    ends: Mapping[str, str]

    def steps(self) -> dict[str, StepProgress]:
        return {item.step.name: item for item in self.progress}

    def plain(self, value: Any) -> Any:
        """A value in which the run's own folder is not seen."""
        if isinstance(value, str):
            return value.replace(self.folder, _HERE)
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        if isinstance(value, Mapping):
            return {self.plain(key): self.plain(each) for key, each in value.items()}
        return value


def differences(yard: Yard, before: RunRow, after: RunRow) -> list[Difference]:
    """All differences of two runs, in the order of the steps; times are left out.

    Raises:
        RunNotFound: The folder of one is gone.
    """
    one, other = _read(yard, before), _read(yard, after)
    old, new = one.steps(), other.steps()
    found: list[Difference] = []
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in old or name not in new:
            here, there = ("there", None) if name in old else (None, "there")
            found.append(Difference(step=name, what="step", where="", before=here, after=there))
            continue
        found += _declared(
            name, one.plain(step_record(old[name].step)), other.plain(step_record(new[name].step))
        )
        found += _files(name, "input", _inputs(one, old[name]), _inputs(other, new[name]))
        found += _files(name, "output", _outputs(one, name), _outputs(other, name))
        ends = one.ends[name], other.ends[name]
        if ends[0] != ends[1]:
            found.append(Difference(step=name, what="status", where="", before=ends[0], after=ends[1]))
    return found


def _read(yard: Yard, row: RunRow) -> _Run:
    directory = open_run(Path(row.dir))
    outputs: dict[tuple[str, str], str] = {}
    folder = directory.plan().run_dir
    for entry in yard.journal.read():
        if entry.kind == "artifact.stored" and entry.run == row.run:
            path = str(entry.data["path"]).replace(folder, _HERE)
            outputs[(str(entry.data["step"]), path)] = str(entry.data["digest"])
    return _Run(
        progress=replayed(directory, yard.journal),
        folder=folder,
        outputs=outputs,
        ends={step.name: step.status for step in view_run(yard, row).steps},
    )


def _declared(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for key in before:
        if before[key] != after[key]:
            yield Difference(step=name, what="declared", where=key, before=before[key], after=after[key])


def _inputs(run: _Run, item: StepProgress) -> dict[str, str]:
    return {} if item.last is None else {run.plain(path): digest for path, digest in item.last.inputs.items()}


def _outputs(run: _Run, step: str) -> dict[str, str]:
    return {path: digest for (name, path), digest in run.outputs.items() if name == step}


def _files(name: str, what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Difference]:
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old != new:
            yield Difference(step=name, what=what, where=path, before=old, after=new)
