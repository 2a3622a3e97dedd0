"""`run_training`, for Python: the signature and the result keys of the reference, its faults mended."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.lifecycle.governed.around import Around, actor_name
from modelyard.lifecycle.governed.carrying_out import GovernedRun
from modelyard.lifecycle.governed.declaration import Governance, read_governance
from modelyard.lifecycle.governed.proving import CertifyingProver, RegistryReleases
from modelyard.lifecycle.governed.repair import repair
from modelyard.lifecycle.governed.request import RunPlaces, TrainingRequest
from modelyard.runs.yard import DEFAULT, Yard, open_yard
from modelyard.training.members import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The process that drives a run; `told` hears of each line of progress."""

    environment: Mapping[str, str]
    told: Callable[[Mapping[str, Any]], None] = lambda _line: None


def run_training(  # noqa: PLR0913  (the reference's signature)
    run_dir: str | Path,
    *,
    run_id: str,
    model_candidate: str,
    train_provider: str,
    infer_provider: str,
    release_id: str | None = None,
    finetune_start_policy: str = "bootstrap",
    live: bool = False,
    file: str | Path = "yard.yaml",
    yard: str | Path = DEFAULT,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train a candidate under governance, and evaluate it where a pack is declared; or take a run up again.

    Without `live` nothing is submitted: the manifest and the exact request are written, and no more.

    Args:
        run_dir: Where the run keeps its files; one folder a run.
        run_id: Names the run for ever; the same call goes on with it after any death.
        model_candidate: One of `governance.candidates`.
        train_provider: Who trains it.
        infer_provider: Who answers with it.
        release_id: `NAME@VERSION` of the registry or an alias, for the policy `from_release`.
        finetune_start_policy: bootstrap, continue_last_promoted, from_release or resume_run.
        live: Submit the training and evaluate it.
        file: The yard.yaml that declares candidates and gate.
        yard: The yard's directory; made where it is missing.
        environment: Of the commands, and whose secrets are kept out of every file; by default this process's.

    Returns:
        run_id, release_id, status (a state of `runs.states`), iteration, dry_run, run_dir, manifest,
        train_handle, evidence, scoring, gate_result, promotion_recommendation, rationale, next_action.

    Raises:
        DocumentError: With every fault of the files.
        GovernanceError: What was asked may not be done; the message says why and what may.
        RunBusy: Another process drives the run.
    """
    environment = dict(os.environ) if environment is None else environment
    request = TrainingRequest(
        run_id=run_id,
        candidate=model_candidate,
        train_provider=train_provider,
        infer_provider=infer_provider,
        release_id=release_id,
        start_policy=finetune_start_policy,
        live=live,
    )
    opened = open_yard(Path(yard), create=True)
    return drive(opened, Path(file), request, Path(run_dir), Caller(environment=environment))


def drive(yard: Yard, file: Path, request: TrainingRequest, run_dir: Path, caller: Caller) -> dict[str, Any]:
    """Drive a run as far as it goes by itself; see `run_training`."""
    request.check()
    governance = read_governance(file, caller.environment)
    places = RunPlaces(run_dir=run_dir.absolute())
    return GovernedRun(yard, governance, request, places, _around(yard, governance, caller)).carry_out()


def drive_repair(
    yard: Yard,
    file: Path,
    run_id: str,
    run_dir: Path,
    caller: Caller,
    *,
    delta: Mapping[str, Scalar],
) -> dict[str, Any]:
    """Drive the next iteration of a run whose gate failed; see `repair`."""
    governance = read_governance(file, caller.environment)
    places = RunPlaces(run_dir=run_dir.absolute())
    return repair(yard, governance, run_id, places, _around(yard, governance, caller), delta=delta)


def _around(yard: Yard, governance: Governance, caller: Caller) -> Around:
    environment = caller.environment
    return Around(
        environment=environment,
        actor=actor_name(environment),
        releases=RegistryReleases(yard=yard, environment=environment),
        prover=CertifyingProver(yard=yard, governance=governance, environment=environment),
        told=caller.told,
    )
