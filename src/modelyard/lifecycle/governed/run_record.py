"""What one governed run writes down: its moves, its progress, its handle, its evidence; never a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.core.clock import stamp
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json
from modelyard.core.journal import Journal
from modelyard.core.redaction import scrubbed, secret_values
from modelyard.lifecycle.governed.around import Around
from modelyard.lifecycle.governed.records import Scoring, evidence_record, percentages
from modelyard.lifecycle.governed.request import RunPlaces, TrainingRequest
from modelyard.lifecycle.governed.training_step import Training
from modelyard.runs.states import NEXT_ACTION, Standing, move, replay, standing


class RunRecord:
    """The standing of a run that this process drives, and every file that tells of it."""

    def __init__(self, journal: Journal, request: TrainingRequest, places: RunPlaces, around: Around) -> None:
        self._journal, self._request, self._places, self._around = journal, request, places, around
        self._secrets = secret_values(around.environment)
        self._share: float | None = None
        self.now: Standing = standing(journal, request.run_id)

    def refresh(self) -> None:
        """Read the standing anew: others may have moved the run before it was locked."""
        self.now = replay(self.now, self._journal.read(start=self.now.read_to))

    def clean(self, value: Any) -> Any:
        """A JSON value without the secrets of the environment."""
        return scrubbed(value, self._secrets)

    def move(self, target: str, *, reason: str = "", evidence: Sequence[str] = ()) -> None:
        """Make a move, and tell of it. Raises `GovernanceError`."""
        self.now = move(
            self._journal, self._request.run_id, target, actor=self._around.actor, reason=self.clean(reason),
            evidence=evidence,
        )  # fmt: skip
        self._share = None
        failpoint(f"governed.after_{target}")
        self._progress()

    def reached(self, share: float | None) -> None:
        """How far the step that goes on is, from 0 to 1; a line only where that is news."""
        if share != self._share:
            self._share = share
            self._progress()

    def handle(self, told: Mapping[str, Any]) -> None:
        """Where the training stands, for who looks for a job."""
        record = {"iteration": self.now.iteration, **told, "time": stamp(self._around.clock())}
        write_json(self._places.handle, self.clean(record))

    def evidence(self, training: Training, outcome: Mapping[str, Any], scoring: Scoring) -> dict[str, Any]:
        """Write what the iteration came to, and give it."""
        record: dict[str, Any] = self.clean(evidence_record(training, outcome, scoring))
        write_json(self._places.evidence(training.iteration), record)
        return record

    def result(self, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
        """What a caller is given."""
        places, state = self._places, self.now.state
        known = places.evidence(self.now.iteration)
        told = evidence or (read_json(known) if known.exists() else {})
        return {
            "run_id": self._request.run_id,
            "release_id": self._request.release_id,
            "status": state,
            "iteration": self.now.iteration,
            "dry_run": not self._request.live,
            "run_dir": str(places.run_dir),
            "manifest": str(places.manifest) if places.manifest.exists() else None,
            "train_handle": read_json(places.handle) if places.handle.exists() else None,
            "evidence": str(known) if told else None,
            "scoring": told.get("scoring"),
            "gate_result": told.get("gate_result"),
            "promotion_recommendation": told.get("promotion_recommendation", "hold"),
            "rationale": told.get("rationale", [self.now.moves[-1].reason]),
            "next_action": NEXT_ACTION[state],
        }

    def _progress(self) -> None:
        state, request = self.now.state, self._request
        phase, step_pct, phase_pct, overall_pct = percentages(state, self._share)
        line = {
            "run_id": request.run_id,
            "iteration": self.now.iteration,
            "phase": phase,
            "step": state,
            "step_pct": step_pct,
            "phase_pct": round(phase_pct, 2),
            "overall_pct": round(overall_pct, 2),
            "train_provider": request.train_provider,
            "infer_provider": request.infer_provider,
            "candidate": request.candidate,
            "status": state,
            "next_action": NEXT_ACTION[state],
            "time": stamp(self._around.clock()),
        }
        self._places.audit.parent.mkdir(parents=True, exist_ok=True)
        with self._places.audit.open("a") as file:
            file.write(json.dumps(line) + "\n")
        write_json(self._places.progress, line, durable=False)
        self._around.told(line)
