"""Keeps what steps leave: an observer that stores outputs as artifacts and journals their lineage."""

from __future__ import annotations

from pathlib import Path

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.journal import Draft
from modelyard.jobs.progress import StepProgress, StepStatus
from modelyard.jobs.step import Step
from modelyard.runs.yard import Yard

#: Kinds of outputs that a document names otherwise.
_KINDS = {"model": "checkpoint"}


class ArtifactKeeper:
    """Stores the outputs of each step once it has succeeded; what was stored before is not stored again."""

    def __init__(self, yard: Yard, run: str) -> None:
        self._yard = yard
        self._run = run
        self._store = ArtifactStore(yard.artifacts_dir)
        self._digests: dict[str, list[str]] = {}  # step -> digests of its outputs
        self._kept: set[tuple[str, int]] = set()
        for entry in yard.journal.read():
            if entry.kind == "artifact.stored" and entry.run == run:
                attempt = (entry.data["step"], entry.data["attempt"])
                if attempt not in self._kept:  # a newer attempt takes the place of the older
                    self._digests[attempt[0]] = []
                self._kept.add(attempt)
                self._digests[attempt[0]].append(entry.data["digest"])

    def __call__(self, item: StepProgress) -> None:
        """Store the outputs of a step that has succeeded."""
        attempt = len(item.jobs)
        if item.status is not StepStatus.SUCCEEDED or (item.step.name, attempt) in self._kept:
            return
        self._kept.add((item.step.name, attempt))
        self._digests[item.step.name] = []
        self._yard.journal.append(
            [self._keep(item.step, output.path, output.kind, attempt) for output in item.step.outputs]
        )

    def _keep(self, step: Step, path: str, kind: str, attempt: int) -> Draft:
        parents = [d for name in (*step.needs, *step.after) for d in self._digests.get(name, [])]
        plain = kind.partition(".")[0]
        artifact = self._store.put(Path(path), kind=_KINDS.get(plain, plain), parents=parents)
        self._digests[step.name].append(artifact.digest)
        data = {
            "digest": artifact.digest,
            "kind": artifact.kind,
            "path": path,
            "step": step.name,
            "attempt": attempt,
            "parents": list(artifact.parents),
            "size_bytes": artifact.size_bytes,
        }
        return Draft(kind="artifact.stored", run=self._run, data=data)
