"""What a search came to, in the words and keys of TAO's result dictionary.

A trial is a recommendation here; `specs` are its values by dotted name. Pure functions of records. Where
the original books a failed trial with the score 0.0, it has none here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.tuning.result import comparable, pareto_front
from modelyard.tuning.tao.settings import Evaluations, TaoSettings
from modelyard.tuning.trial import Direction, Trial, TrialState

#: What TAO calls a trial's state. One that was stopped for being bad has no success to show.
_STATUS = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "success",
    TrialState.FAILED: "failure",
    TrialState.PRUNED: "canceled",
}


class NoSuccessError(TuneError, RuntimeError):
    """Every recommendation failed; the original raises RuntimeError."""


class MetricExtractorError(TuneError, RuntimeError):
    """Trials end well and tell no metric, one after the other; the original's name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recommendation(Mapping[str, Any]):
    """A trial as callbacks get it: a mapping of its values, with what is known of it as attributes."""

    id: int
    specs: Mapping[str, Any]
    metric: str
    # The SDK's id of the job; None before it is launched.
    job_id: str | None = None
    status: str = "pending"
    # The first objective's value; None where it has none.
    result: float | None = None
    objective_values: Mapping[str, float] = field(default_factory=dict)
    objective_score: float | None = None
    failure_reason: str | None = None
    adjustments: Sequence[Mapping[str, Any]] = ()
    feedback: Any = None
    # How many epochs it was given; None for those of the specification.
    budget: int | None = None
    # Who thought of it: default, an algorithm's name, retry.
    source: str = ""
    # The job whose checkpoint it goes on from, and the epochs that this one had behind it.
    resume_from_job_id: str | None = None
    resume_from_epoch: int | None = None

    def __getitem__(self, name: str) -> Any:
        return self.specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of a trial beside the study."""

    specs: Mapping[str, Any]
    job_id: str | None = None
    # By metric; empty where the study's own values say it.
    values: Mapping[str, float] = field(default_factory=dict)
    adjustments: Sequence[Mapping[str, Any]] = ()
    feedback: Any = None
    # Of what it goes on from: the SDK's id of the job, and the epochs that this one had behind it.
    resumes: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a callback gave, or the error that it raised."""

    value: Any = None
    trouble: str = ""


def recommendation(trial: Trial, kept: Kept, settings: TaoSettings) -> Recommendation:
    """A trial as the original's callbacks and history have it."""
    names = [objective.metric for objective in settings.objectives]
    values = dict(kept.values)
    if trial.state is not TrialState.COMPLETE:
        values = {}
    elif not values and trial.values is not None and len(trial.values) == len(names):
        values = dict(zip(names, trial.values, strict=True))
    job_id, epoch = kept.resumes or (None, None)
    adjusted = {str(each["key"]): each["to"] for each in kept.adjustments if each.get("key") in kept.specs}
    return Recommendation(
        id=trial.number, specs={**kept.specs, **adjusted}, metric=names[0], job_id=kept.job_id,
        status=_STATUS[trial.state], result=values.get(names[0]), objective_values=values,
        objective_score=score(values, settings),
        failure_reason=(trial.why or None) if trial.state.final else None,
        adjustments=kept.adjustments, feedback=kept.feedback, budget=trial.budget, source=trial.source,
        resume_from_job_id=job_id, resume_from_epoch=epoch,
    )  # fmt: skip


def score(values: Mapping[str, float], settings: TaoSettings) -> float | None:
    """The one number of an outcome: the metric itself, or of several their weighted sum, more being better.

    None where one of them is missing.
    """
    if any(objective.metric not in values for objective in settings.objectives):
        return None
    if len(settings.objectives) == 1:
        return values[settings.objectives[0].metric]
    total = sum(
        -objective.sign * own.weight * values[objective.metric] / own.scale
        for objective, own in zip(settings.objectives, settings.weighing, strict=True)
    )
    return total if math.isfinite(total) else None


def best_of(
    trials: Sequence[Trial], recs: Sequence[Recommendation], settings: TaoSettings
) -> Recommendation | None:
    """The best by score among those that may be called best; of equals the first."""
    eligible = {trial.number for trial in comparable(trials)}
    sign = settings.objectives[0].sign if len(settings.objectives) == 1 else -1.0
    scored = [
        (rec.objective_score, rec) for rec in recs if rec.id in eligible and rec.objective_score is not None
    ]
    return min(scored, key=lambda pair: (sign * pair[0], pair[1].id), default=(0.0, None))[1]


def front_of(
    trials: Sequence[Trial], recs: Sequence[Recommendation], settings: TaoSettings
) -> list[Recommendation]:
    """Those that no other beats in every objective."""
    names = [objective.metric for objective in settings.objectives]
    by_number = {rec.id: rec for rec in recs}
    whole = [
        replace(trial, values=tuple(by_number[trial.number].objective_values[name] for name in names))
        for trial in trials
        if trial.number in by_number and set(names) <= set(by_number[trial.number].objective_values)
    ]
    return [by_number[trial.number] for trial in pareto_front(whole, settings.objectives)]


def result_record(
    trials: Sequence[Trial], recs: Sequence[Recommendation], settings: TaoSettings, *,
    evaluations: tuple[dict[str, Any], dict[str, Any]], total: int, state: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The result dictionary.

    Args:
        trials: All trials.
        recs: The same as recommendations.
        settings: Those of the search.
        evaluations: The records of the baseline and of the final evaluation, without comparisons.
        total: How many recommendations there were to be.
        state: What the algorithm has to say.

    Raises:
        NoSuccessError: No recommendation succeeded.
    """
    best = best_of(trials, recs, settings)
    if best is None:
        failed = [rec.id for rec in recs if rec.status == "failure"]
        why = next((rec.failure_reason for rec in recs if rec.failure_reason), "")
        raise NoSuccessError(
            f"no recommendation succeeded; failed: {failed or 'none'}{f' ({why})' if why else ''}; "
            "look at their logs, mend the command or the specification, and run again"
        )
    baseline, final = evaluations
    direction = settings.objectives[0].direction
    measured = baseline.get("metric_value")
    record = {
        "best": _best_record(best),
        "progress": progress_record(trials, recs, settings, total=total),
        "baseline": {**baseline, "comparison_to_best": comparison(measured, best.result, direction)},
        "final_evaluation": {
            **final, "comparison_to_baseline": comparison(measured, final.get("metric_value"), direction)
        },
        "history": [_history_record(rec) for rec in recs],
        "algorithm_state": dict(state),
    }  # fmt: skip
    if len(settings.objectives) > 1:
        record["pareto_front"] = [
            {**_best_record(rec), "status": rec.status} for rec in front_of(trials, recs, settings)
        ]
    return record


def progress_record(
    trials: Sequence[Trial], recs: Sequence[Recommendation], settings: TaoSettings, *, total: int
) -> dict[str, Any]:
    """How far the search has come."""
    best = best_of(trials, recs, settings)
    several = len(settings.objectives) > 1
    objectives = [
        {"metric": o.metric, "direction": o.direction, "weight": w.weight, "scale": w.scale}
        for o, w in zip(settings.objectives, settings.weighing, strict=True)
    ]
    return {
        "completed": sum(trial.state.final for trial in trials),
        "total": total,
        "best_metric": best.result if best else None,
        "best_objective_score": best.objective_score if best else None,
        "best_rec_id": best.id if best else None,
        "algorithm": settings.algorithm,
        "objectives": {
            "primary_metric": settings.objectives[0].metric,
            "objectives": objectives,
            "score_direction": "maximize" if several else settings.objectives[0].direction,
        },
        "pareto_front_size": len(front_of(trials, recs, settings)),
    }


def status_record(
    trials: Sequence[Trial], recs: Sequence[Recommendation], settings: TaoSettings, *, total: int, name: str
) -> dict[str, Any]:
    """What `query_status` tells of a search, and with fewer keys `AutoML.get_status`."""
    best = best_of(trials, recs, settings)
    states = [trial.state for trial in trials]
    progress = {
        **progress_record(trials, recs, settings, total=total),
        "succeeded": states.count(TrialState.COMPLETE),
        "failed": states.count(TrialState.FAILED),
        "canceled": states.count(TrialState.PRUNED),
        "pending": states.count(TrialState.RUNNING),
    }
    active = [rec for rec in recs if rec.status == "running"]
    return {
        "experiment_id": name,
        "progress": progress,
        "best": _best_record(best) if best else {},
        "recommendations": [
            {**_best_record(rec), "status": rec.status, "failure_reason": rec.failure_reason} for rec in recs
        ],
        "pareto_front": [
            {"rec_id": rec.id, "specs": dict(rec.specs), "metric_value": rec.result,
             "objective_score": rec.objective_score, "objective_values": dict(rec.objective_values)}
            for rec in unbeaten(trials, recs, settings)
        ],
        "active_rec_ids": [rec.id for rec in active],
        "active_jobs": [{"rec_id": rec.id, "job_id": rec.job_id} for rec in active if rec.job_id],
    }  # fmt: skip


def unbeaten(
    trials: Sequence[Trial], recs: Sequence[Recommendation], settings: TaoSettings
) -> list[Recommendation]:
    """Those that no other beats in every objective; of one objective all that succeeded, as the original."""
    if len(settings.objectives) == 1:
        return [rec for rec in recs if rec.status == "success"]
    return front_of(trials, recs, settings)


def comparison(baseline: float | None, value: float | None, direction: Direction) -> dict[str, Any] | None:
    """How much better a value is than the baseline; None where one of them is missing."""
    if baseline is None or value is None:
        return None
    delta = baseline - value if direction == "minimize" else value - baseline
    return {"delta": delta, "improved": delta > 0, "direction": direction}


# -- evaluations before and after ---------------------------------------------------------------------------


def baseline_record(given: Evaluations, metric: str, measured: Outcome | None) -> dict[str, Any]:
    """The record of the baseline: provided, measured by the callback, or why there is none."""
    record: dict[str, Any] = {"enabled": given.baseline, "metric_name": metric, "metric_value": None}
    if given.baseline_record:
        record["record_path"] = given.baseline_record
    if not given.baseline:
        return {**record, "status": "skipped"}
    if given.baseline_metric is not None:
        return {**record, "metric_value": given.baseline_metric, "status": "provided"}
    if measured is None:
        reason = "neither baseline_fn nor automl_settings['baseline_metric'] was given"
        return {**record, "status": "unavailable", "failure_reason": reason}
    if measured.trouble:
        return {**record, "status": "failure", "failure_reason": measured.trouble}
    found = number_of(measured.value)
    if found is None and measured.value is not None:
        reason = f"baseline_fn gave {measured.value!r}, which is no finite number"
        return {**record, "status": "failure", "failure_reason": reason}
    return {**record, "metric_value": found, "status": "metric_missing" if found is None else "measured"}


def final_record(
    given: Evaluations, metric: str, *, best: Recommendation | None, measured: Outcome | None
) -> dict[str, Any]:
    """The record of the final evaluation: provided, measured by the callback, taken over, or why not."""
    record: dict[str, Any] = {"enabled": given.final, "metric_name": metric, "metric_value": None}
    if given.final_record:
        record["record_path"] = given.final_record
    if not given.final:
        return {**record, "status": "skipped"}
    if isinstance(given.final_given, Mapping):
        source = given.final_given.get("source", "provided")
        return {**_taken(record, given.final_given, "provided"), "source": source}
    if given.final_given is not None:
        source = "automl_settings.final_evaluation_metric"
        return {**record, "metric_value": given.final_given, "status": "provided", "source": source}
    if measured is not None and measured.trouble:
        failed = {"status": "callback_error", "failure_reason": measured.trouble}
        return {**record, **failed, "source": "final_eval_fn"}
    if measured is not None:
        return {**_taken(record, measured.value, "measured"), "source": "final_eval_fn"}
    if given.reuse_best and best is not None:
        source = "best_selection_metric"
        return {**record, "metric_value": best.result, "status": "reused_best", "source": source}
    reason = (
        "neither final_eval_fn, automl_settings['final_evaluation_metric'] nor "
        "reuse_best_metric_for_final_evaluation was given"
    )
    return {**record, "status": "unavailable", "failure_reason": reason}


def number_of(value: object) -> float | None:
    """A finite number; None for anything else, true and false among it."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and not isinstance(value, str) else None


def values_of(payload: object, metrics: Sequence[str]) -> dict[str, float] | str:
    """The values by metric that a callback's answer holds, or what is missing in it.

    A number is the first metric's; in a mapping `metric_value`, `metric`, `value` or `score` stand for it.
    """
    if not isinstance(payload, Mapping):
        found = number_of(payload)
        given: Mapping[str, Any] = {} if found is None else {metrics[0]: found}
    else:
        words = ("metric_value", "metric", "value", "score")
        first = next((payload[word] for word in words if word in payload), None)
        given = {metrics[0]: first, **payload}
    values = {name: number_of(given.get(name)) for name in metrics}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        return f"no value of {', '.join(missing)}"
    return {name: value for name, value in values.items() if value is not None}


def _taken(record: Mapping[str, Any], payload: object, status: str) -> dict[str, Any]:
    """The record with what a mapping or a number tells."""
    if isinstance(payload, Mapping):
        rest = {
            key: value for key, value in payload.items() if key not in ("metric", "metric_value", "status")
        }
        value = number_of(payload.get("metric_value", payload.get("metric")))
        status = str(payload.get("status", status))
    else:
        rest, value = {}, number_of(payload)
    return {**record, **rest, "metric_value": value, "status": "metric_missing" if value is None else status}


def _best_record(rec: Recommendation) -> dict[str, Any]:
    return {
        "rec_id": rec.id, "job_id": rec.job_id, "specs": dict(rec.specs), "metric_value": rec.result,
        "objective_score": rec.objective_score, "objective_values": dict(rec.objective_values),
        "adjustments": list(rec.adjustments), "feedback": rec.feedback,
    }  # fmt: skip


def _history_record(rec: Recommendation) -> dict[str, Any]:
    return {
        "rec_id": rec.id, "job_id": rec.job_id, "metric": rec.result, "objective_score": rec.objective_score,
        "objective_values": dict(rec.objective_values), "status": rec.status,
        "failure_reason": rec.failure_reason, "adjustments": list(rec.adjustments), "feedback": rec.feedback,
    }  # fmt: skip
