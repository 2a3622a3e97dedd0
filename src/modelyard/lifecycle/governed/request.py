"""What is asked of a governed run, and the places of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import GovernanceError
from modelyard.jobs.step import is_name
from modelyard.training.members import Scalar

POLICIES = ("bootstrap", "continue_last_promoted", "from_release", "resume_run")
#: Between a run's id and the number of an iteration, in the name of its training.
_ITERATION = ".iter_"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """One candidate to be trained by one provider and asked through another."""

    run_id: str
    candidate: str
    train_provider: str
    infer_provider: str
    release_id: str | None = None
    start_policy: str = "bootstrap"
    live: bool = False
    # Over the candidate's own values: what a repair changes.
    training_delta: Mapping[str, Scalar] = field(default_factory=dict)
    repair_reason: str = ""

    def check(self) -> None:
        """Refuse what no run can be made of. Raises `GovernanceError`."""
        if not is_name(self.run_id) or "/" in self.run_id:
            raise GovernanceError(
                f"run id {self.run_id!r}: is not a name; use letters, digits, '.', '_', '-'"
            )
        if _ITERATION in self.run_id:
            raise GovernanceError(
                f"run id {self.run_id!r}: holds {_ITERATION}, which names the trainings of "
                f"{self.run_id.partition(_ITERATION)[0]!r}; leave that out"
            )
        if self.start_policy not in POLICIES:
            told = ", ".join(POLICIES)
            raise GovernanceError(
                f"{self.run_id}: start policy {self.start_policy!r} is not known; use {told}"
            )
        if self.start_policy == "from_release" and not self.release_id:
            raise GovernanceError(f"{self.run_id}: from_release needs a release; give --release NAME@VERSION")

    @property
    def digest(self) -> str:
        """Of what was asked, live or not."""
        return digest_json({key: value for key, value in asdict(self).items() if key != "live"})

    def record(self) -> dict[str, Any]:
        """As a JSON value."""
        return {**asdict(self), "training_delta": dict(self.training_delta)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlaces:
    """Where a governed run keeps what."""

    run_dir: Path

    @property
    def manifest(self) -> Path:
        """What the run was made from, written before anything is submitted."""
        return self.run_dir / "manifests" / "run_manifest.json"

    @property
    def handle(self) -> Path:
        """Where the training stands."""
        return self.run_dir / "trainer_state" / "train_handle.json"

    @property
    def audit(self) -> Path:
        """A line for each step of progress."""
        return self.run_dir / "logs" / "audit.jsonl"

    @property
    def progress(self) -> Path:
        """The last of those lines."""
        return self.run_dir / "progress.json"

    @property
    def page(self) -> Path:
        """The page to open."""
        return self.run_dir / "report.html"

    def iteration(self, number: int) -> Path:
        """The folder of an iteration."""
        return self.run_dir / "iterations" / f"iter_{number:03d}"

    def evidence(self, number: int) -> Path:
        """What an iteration came to."""
        return self.iteration(number) / "evidence.json"

    def model(self, number: int) -> Path:
        """Where an iteration's training leaves its checkpoint, by default."""
        return self.iteration(number) / "model"

    def training(self, number: int) -> Path:
        """The run directory of an iteration's training."""
        return self.iteration(number) / "training"


def training_run(run_id: str, iteration: int) -> str:
    """The name under which the journal knows an iteration's training."""
    return f"{run_id}{_ITERATION}{iteration:03d}"
