"""The next iteration of a run whose gate failed, within its budgets of iterations, money and alpha.

The trainer is told which items were lost by id, cluster and tags, never by what they ask: a pack whose
prompts had been trained on would prove nothing. Every iteration is a further look at the same pack, so that
each is judged at a smaller alpha (`evidence.design`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.core.errors import GovernanceError
from modelyard.core.files import read_json, write_json, write_whole
from modelyard.core.journal import Entry, Journal
from modelyard.core.redaction import exposed, secret_values
from modelyard.lifecycle.governed.around import Around
from modelyard.lifecycle.governed.carrying_out import GovernedRun
from modelyard.lifecycle.governed.declaration import Governance
from modelyard.lifecycle.governed.driving import driving
from modelyard.lifecycle.governed.pinned import refuse_other_gate
from modelyard.lifecycle.governed.request import RunPlaces, TrainingRequest, training_run
from modelyard.runs.states import START, Standing, move, standing
from modelyard.runs.yard import Yard
from modelyard.training.members import Scalar

_REPAIRABLE = frozenset({"fail", "inconclusive", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a run has used of its budgets."""

    iterations: int
    usd: float


def repair(
    yard: Yard,
    governance: Governance,
    run_id: str,
    places: RunPlaces,
    around: Around,
    *,
    delta: Mapping[str, Scalar] | None = None,
) -> dict[str, Any]:
    """Begin the next iteration and drive it; killed, the same call goes on with it.

    Args:
        yard: Whose journal has the run.
        governance: Its budgets.
        run_id: The run.
        places: Of the run's files.
        around: As for `GovernedRun`.
        delta: Values of the training's placeholders that are changed, over those of earlier repairs.

    Raises:
        GovernanceError: The run is not one to be repaired, or a budget is used up.
        RunBusy: Another process drives it.
    """
    for name in exposed(dict(delta or {}), secret_values(around.environment)):
        raise GovernanceError(
            f"{run_id}: the value of {name} is a secret; put it into an environment variable"
        )
    now = standing(yard.journal, run_id)
    if now.state in _REPAIRABLE:
        with driving(yard, run_id, places.run_dir):
            now = standing(yard.journal, run_id)
            refuse_other_gate(run_id, governance, places)
            _check_budget(governance, yard.journal, now, places)
            request = _next_request(places, now, delta or {})
            _prepare(places, now.iteration, request)
            reason = request.repair_reason
            now = move(yard.journal, run_id, "repair", actor=around.actor, reason=reason)
    if now.state == "repair":
        with driving(yard, run_id, places.run_dir):
            request = _stored(places, now.iteration + 1)
            now = move(yard.journal, run_id, START, actor=around.actor, evidence=[request.digest])
    elif now.iteration < 2:
        told = "there is no such run" if not now.state else f"it stands at {now.state}"
        raise GovernanceError(
            f"{run_id}: cannot be repaired: {told}; repair follows fail, inconclusive or failed"
        )
    request = replace(_stored(places, now.iteration), live=True)
    return GovernedRun(yard, governance, request, places, around).carry_out()


def spent(governance: Governance, journal: Journal, now: Standing, places: RunPlaces) -> Spent:
    """What the trainings took, at their provider's price, and what was paid for answers."""
    provider = governance.providers.known.get(_stored(places, 1).train_provider)
    hourly = provider.train.usd_per_hour if provider and provider.train else 0.0
    trained = sum(_training_seconds(journal.read(), now)) / 3600.0 * hourly
    asked = sum(_answers_usd(places.evidence(number)) for number in range(1, now.iteration + 1))
    return Spent(iterations=now.iteration, usd=trained + asked)


def _check_budget(governance: Governance, journal: Journal, now: Standing, places: RunPlaces) -> None:
    budget, used = governance.budget, spent(governance, journal, now, places)
    if used.iterations >= budget.iterations:
        raise GovernanceError(
            f"{now.run}: has used its {budget.iterations} iterations; raise governance.budget.iterations, "
            "or leave it at hold"
        )
    if budget.usd is not None and used.usd >= budget.usd:
        raise GovernanceError(
            f"{now.run}: has spent {used.usd:.2f} of {budget.usd:.2f} USD; raise governance.budget.usd, "
            "or leave it at hold"
        )


def _next_request(places: RunPlaces, now: Standing, delta: Mapping[str, Scalar]) -> TrainingRequest:
    before = _stored(places, now.iteration)
    evidence = read_json(places.evidence(now.iteration))
    reason = f"iteration {now.iteration} was {now.state}: " + "; ".join(evidence["rationale"])
    return replace(before, training_delta={**before.training_delta, **delta}, repair_reason=reason)


def _prepare(places: RunPlaces, iteration: int, request: TrainingRequest) -> None:
    """The next iteration's folder, before it is on record; written again after a death in between."""
    folder = places.iteration(iteration + 1)
    lost = "".join(json.dumps(each, sort_keys=True) + "\n" for each in _losses(places.evidence(iteration)))
    write_whole(folder / "losses.jsonl", lost)
    write_json(folder / "request.json", request.record())


def _losses(evidence: Path) -> Iterable[dict[str, Any]]:
    """The items that the candidate lost: what they are, not what they ask."""
    report_path = (read_json(evidence).get("report") or {}).get("path")
    if report_path is None:
        return
    report, folder = read_json(Path(report_path)), Path(report_path).parent
    lost = {*report["pairwise_losses"], *report["critical"]["new_failures"]}
    for line in (folder / "pack.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        name = item.get("prompt_id", item.get("id"))
        if name in lost:
            cluster = item.get("cluster", item.get("group_id"))
            told = {"cluster": cluster, "tags": item.get("tags", []), "critical": item.get("critical", False)}
            yield {"prompt_id": name, **told}


def _stored(places: RunPlaces, iteration: int) -> TrainingRequest:
    path = places.iteration(iteration) / "request.json"
    try:
        return TrainingRequest(**read_json(path))
    except FileNotFoundError as error:
        raise GovernanceError(f"{path}: is missing; give the run's folder with --run-dir") from error


def _training_seconds(entries: Iterable[Entry], now: Standing) -> Iterable[float]:
    trainings = {training_run(now.run, number) for number in range(1, now.iteration + 1)}
    for entry in entries:
        if entry.kind == "job.finished" and entry.run in trainings:
            begun, ended = entry.data.get("started_at"), entry.data.get("finished_at")
            if begun and ended:
                yield (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()


def _answers_usd(evidence: Path) -> float:
    if not evidence.exists():
        return 0.0
    report = (read_json(evidence).get("report") or {}).get("path")
    if report is None:
        return 0.0
    lines = (Path(report).parent / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line).get("cost_usd") or 0.0 for line in lines)
