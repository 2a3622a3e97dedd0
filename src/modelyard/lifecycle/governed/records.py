"""The records of a governed run, in the field names of the reference: manifest, evidence, progress."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from modelyard import __version__
from modelyard.core.digests import digest_json, digest_path
from modelyard.jobs.step import Step, step_digest
from modelyard.lifecycle.governed.pinned import gate_digest
from modelyard.lifecycle.governed.providers import Provider
from modelyard.lifecycle.governed.training_step import Training

MANIFEST_SCHEMA = "modelyard.run_manifest/1"
EVIDENCE_SCHEMA = "modelyard.iteration_evidence/1"
#: The phases that people see, and the states that belong to each, in their order.
PHASES: Mapping[str, tuple[str, ...]] = {
    "route": ("requested", "routed"),
    "plan": ("planned", "plan_only"),
    "train": ("submit_intent", "submitted", "running", "artifacts_ready"),
    "evaluate": ("paired_eval",),
    "gate": ("pass", "fail", "inconclusive", "approval", "stage", "shadow", "prod"),
}
#: States from which an iteration does not go on by itself.
_ENDED = frozenset({"pass", "fail", "inconclusive", "approval", "stage", "shadow", "prod"})
#: Files that decide how text becomes tokens and messages become text.
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How an iteration was scored, and whether that may promote anything."""

    mode: str
    quality_signal: str
    promotion_eligible: bool
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "mode": self.mode,
            "quality_signal": self.quality_signal,
            "promotion_eligible": self.promotion_eligible,
            "notes": list(self.notes),
        }


#: Nothing was trained, so there is nothing to score.
DRY_RUN = Scoring(
    mode="dry_run_fixture_scores", quality_signal="orchestration_only", promotion_eligible=False,
    notes=("nothing was trained; there are no scores",),
)  # fmt: skip
PENDING = Scoring(
    mode="pending_live_paired_eval", quality_signal="none_yet", promotion_eligible=False,
    notes=("no paired evaluation has been made",),
)  # fmt: skip
#: The training did not end well, so no evaluation can come.
NOT_TRAINED = Scoring(
    mode="not_scored", quality_signal="none", promotion_eligible=False,
    notes=("the training left nothing that could be evaluated",),
)  # fmt: skip


def paired_scoring(verdict: str) -> Scoring:
    """Scoring by a certificate that the independent verifier has confirmed."""
    return Scoring(
        mode="live_paired_eval", quality_signal="paired_model_vs_model", promotion_eligible=verdict == "pass",
    )  # fmt: skip


def manifest_record(training: Training, step: Step, infer: Provider, *, live: bool) -> dict[str, Any]:
    """What the run is made from, everything by its digest."""
    request, governance = training.request, training.governance
    pack = governance.gate.pack
    folder = governance.folder
    data = {each: digest_path(folder / each) for each in training.candidate.data}
    run_dir = str(training.places.training(training.iteration))
    return {
        "schema": MANIFEST_SCHEMA,
        "run_id": request.run_id,
        "release_id": request.release_id,
        "model_candidate": request.candidate,
        "training_start": training.start.record(),
        "model_roadmap_evidence": {
            "base": training.candidate.base,
            "revision": training.candidate.revision,
            **training.candidate.profile,
        },
        "execution": {
            "train_provider": request.train_provider,
            "infer_provider": request.infer_provider,
            "dry_run": not live,
        },
        "provider_config": {"train": dict(training.provider.config), "infer": dict(infer.config)},
        "digests": {
            "request": request.digest,
            "document": governance.document.digest,
            "step": step_digest(step, run_dir=run_dir),
            "data": data,
            "prompt_pack": digest_path(pack) if pack and pack.exists() else None,
            "gate": gate_digest(governance),
            "code": {each: _digest(each) for each in step.inputs if each.endswith((".py", ".sh"))},
            "base_model": training.start.digest,
            "tokenizer": _tokenizer(Path(training.start.base)),
            "providers": {each.name: digest_path(each.path) for each in (training.provider, infer)},
        },
        "environment": environment_record(),
        "seeds": {"training": governance.seed},
    }


def environment_record() -> dict[str, Any]:
    """The interpreter and the digest of all installed packages with their versions."""
    packages = sorted({f"{each.name}=={each.version}" for each in metadata.distributions()})
    return {
        "modelyard": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": digest_json(packages),
    }


def evidence_record(training: Training, outcome: Mapping[str, Any], scoring: Scoring) -> dict[str, Any]:
    """What an iteration came to; `outcome` has the gate's fields: see `gate_outcome`."""
    request, iteration = training.request, training.iteration
    return {
        "schema": EVIDENCE_SCHEMA,
        "run_id": request.run_id,
        "iteration_id": f"iter_{iteration:03d}",
        "parent_iteration_id": f"iter_{iteration - 1:03d}" if iteration > 1 else None,
        "base_model": training.start.base,
        "training_start": training.start.record(),
        "model_roadmap_evidence": dict(training.candidate.profile),
        "train_provider": request.train_provider,
        "infer_provider": request.infer_provider,
        "repair_reason": request.repair_reason or None,
        "changes": {"training_delta": dict(request.training_delta)},
        "scoring": scoring.record(),
        **outcome,
    }


def percentages(state: str, share: float | None) -> tuple[str, float | None, float, float]:
    """The phase of a state; how far step, phase and all are, in percent.

    Args:
        state: Of the machine in `runs.states`.
        share: How far the step that goes on is, from 0 to 1; None where nobody can tell.
    """
    names = list(PHASES)
    phase = next((name for name in names if state in PHASES[name]), "train")
    states = PHASES[phase]
    if state in _ENDED:
        return phase, 100.0, 100.0, 100.0
    if state not in states:  # failed, lost, refused: the phase has got no further
        return phase, None, 0.0, 100.0 * names.index(phase) / len(names)
    within = (states.index(state) + (share or 0.0)) / len(states)
    step = None if share is None else 100.0 * share
    return phase, step, 100.0 * within, 100.0 * (names.index(phase) + within) / len(names)


def _tokenizer(base: Path) -> dict[str, str]:
    return {name: digest_path(base / name) for name in _TOKENIZER if (base / name).is_file()}


def _digest(path: str) -> str | None:
    return digest_path(Path(path)) if Path(path).is_file() else None


def gate_outcome(gate: str, recommendation: str, rationale: Sequence[str]) -> dict[str, Any]:
    """The gate's fields where nothing was scored."""
    return {
        "scores": {}, "improvement": None, "gate_result": gate, "promotion_recommendation": recommendation,
        "rationale": list(rationale),
    }  # fmt: skip
