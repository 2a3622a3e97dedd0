"""`AutoMLRunner`: TAO AutoML's runner by its own interface, over our tuner and any SDK object.

    runner = AutoMLRunner(sdk, skill_dir, action="train", poll_interval=30)
    result = runner.run(train_dataset_uri=..., automl_settings={...}, **platform_kwargs)

    WORKSPACE/run_20260102_030405/    a run of the yard WORKSPACE, with the study's files
        automl.json                   what `query_status` needs to know
        baseline.json                 the measurement before the search
        deleted.json                  the jobs whose results were deleted at the end
        trials/0007/trial.json        what the trial was launched with
        trials/0007/kept.json         what came of it beside the study's values
        jobs/                         the ledger of the SDK's jobs

Trials run side by side where `automl_max_concurrent` says so; the first is the default configuration. A
run that was stopped or killed goes on with `resume=True`, with the jobs that were under way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, utc_now
from modelyard.core.errors import DocumentError, Fault, TuneError
from modelyard.core.files import read_json, write_json
from modelyard.jobs.backend import BackendSettings
from modelyard.jobs.backends.sdk import SdkBackend, SdkOptions
from modelyard.jobs.backends.sdk_client import Sdk
from modelyard.jobs.backends.sdk_ledger import newest_jobs
from modelyard.runs.directory import open_run
from modelyard.runs.execution import Outcome as RunOutcome
from modelyard.runs.yard import open_yard
from modelyard.tuning.result import TuneResult
from modelyard.tuning.running import step_name, trial_folder
from modelyard.tuning.search import Hooks
from modelyard.tuning.tao.calls import NO_CHECKPOINT
from modelyard.tuning.tao.exporting import export_to_wandb
from modelyard.tuning.tao.history import KEPT_FILE, kept_of_run, run_history
from modelyard.tuning.tao.measuring import NO_VALUE, Ran, guarded, measured
from modelyard.tuning.tao.preparing import Prepared, prepared
from modelyard.tuning.tao.record import SearchRecord, touch, write_record
from modelyard.tuning.tao.request import RunRequest, run_signature
from modelyard.tuning.tao.result import (
    MetricExtractorError,
    Outcome,
    Recommendation,
    baseline_record,
    best_of,
    final_record,
    front_of,
    recommendation,
    result_record,
    score,
)
from modelyard.tuning.tao.retention import delete_results, deleted_jobs
from modelyard.tuning.tao.status import query_status
from modelyard.tuning.trial import Trial, TrialState
from modelyard.tuning.tuner import Tuner
from modelyard.tuning.view import view_study

__all__ = ["AutoMLRunner", "query_status"]

_BASELINE = "baseline.json"


class AutoMLRunner:
    """One SDK and one action of a skill; `run` may be called again and again, one call at a time."""

    def __init__(
        self, sdk: Sdk, skill_dir: str | Path, action: str = "train", poll_interval: float = 30, *,
        environment: Mapping[str, str] | None = None, clock: Clock = utc_now,
    ) -> None:  # fmt: skip
        """Use an SDK for the skill in a folder, with a look at its jobs every `poll_interval` seconds.

        Raises:
            DocumentError: The folder is no skill's.
        """
        self._sdk, self._skill_dir, self._action = sdk, Path(skill_dir), action
        self._poll_s, self._clock = float(poll_interval), clock
        self._environment = os.environ if environment is None else environment
        self._run_dir: Path | None = None
        if not (self._skill_dir / "references" / "skill_info.yaml").is_file():
            fault = Fault(
                file=str(self._skill_dir), key="references/skill_info.yaml", value="",
                problem="does not exist", remedy="give the folder of a model of TAO's skill bank",
            )  # fmt: skip
            raise DocumentError([fault])

    def run(self, *given: Any, **named: Any) -> dict[str, Any]:
        """Search, and give TAO's result dictionary; `RunRequest` has the arguments.

        Raises:
            DocumentError: Something in the arguments or the skill is wrong; nothing has been made.
            TuneError: The search cannot be made; `NoSuccessError`: no trial succeeded;
                `MetricExtractorError`: the first trials ended well and told no metric.
            BackendUnreachable: The platform did not answer for ten minutes; what runs goes on.
            SystemExit: SIGINT or SIGTERM came: jobs were stopped, and the run can be resumed.
        """
        request = RunRequest.of(given, named)
        ready = prepared(
            request, self._skill_dir, self._action, self._sdk, environment=self._environment
        )  # fmt: skip
        run_dir = self._workspace(request)
        _check_members(run_dir, ready)
        search = ready.search(run_dir, poll_s=self._poll_s, environment=self._environment)
        yard = open_yard(run_dir.parent, create=True)
        self._run_dir = run_dir
        backend = SdkBackend(
            BackendSettings(
                jobs_dir=run_dir / "jobs", environment=self._environment, slots=ready.settings.parallel
            ),
            self._sdk,
            options=SdkOptions(
                image=ready.skill.image, platform_kwargs=ready.platform, call=ready.workload.call,
                poll_s=self._poll_s,
            ),
            clock=self._clock,
        )  # fmt: skip
        running = _Run(request=request, ready=ready, backend=backend, run_dir=run_dir, sdk=self._sdk)
        baseline = running.baseline()
        tuner = Tuner(
            search, yard=yard, backend=backend, hooks=running.hooks(), environment=self._environment
        )
        result = tuner.run()
        if result.outcome is RunOutcome.CANCELLED:
            raise SystemExit(1)
        return running.finish(result, baseline)

    def cancel_active_jobs(self, *, reason: str = "AutoML run canceled") -> None:
        """Ask the run under way to stop its jobs and come back; it can be resumed. From any thread."""
        if self._run_dir is not None and (self._run_dir / "run.json").exists():
            write_json(open_run(self._run_dir).cancel_path, {"asked": reason}, durable=False)

    def _workspace(self, request: RunRequest) -> Path:
        """The folder of this run: a fresh one, or that of the run to be resumed."""
        base = Path(request.workspace_path).absolute()
        if request.resume:
            if (base / "run.json").exists():
                return base
            found = sorted(path.parent for path in base.glob("run_*/run.json"))
            if not found:
                raise TuneError(f"{base}: there is no run to resume here; leave resume out to begin one")
            return found[-1]
        name = f"run_{self._clock():%Y%m%d_%H%M%S}"
        numbered = (f"{name}_{number}" for number in range(2, 10_000))
        return next(path for path in map(base.joinpath, (name, *numbered)) if not path.exists())


AutoMLRunner.run.__signature__ = run_signature()  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One call of `run`: the callbacks, and what is kept of trials for the result."""

    request: RunRequest
    ready: Prepared
    backend: SdkBackend
    run_dir: Path
    sdk: Sdk

    def baseline(self) -> dict[str, Any]:
        """The record of the measurement before the search; made once for a run, however often resumed."""
        path, settings = self.run_dir / _BASELINE, self.ready.settings
        if path.exists():
            return dict(read_json(path))
        ask = self.request.baseline_fn
        wanted = settings.evaluations.baseline and settings.evaluations.baseline_metric is None
        specs = json.loads(json.dumps(self.ready.specs))
        found = guarded(ask, specs) if ask is not None and wanted else None
        record = baseline_record(settings.evaluations, settings.objectives[0].metric, found)
        write_json(path, record)
        return record

    def hooks(self) -> Hooks:
        """What the tuner tells us."""
        return Hooks(opened=self._opened, proposed=self._proposed, measured=self._measured, ended=self._ended)

    def finish(self, result: TuneResult, baseline: dict[str, Any]) -> dict[str, Any]:
        """The result dictionary, after the last evaluation and the deletion of what is not to be kept."""
        if result.triage is not None and result.triage.cause == "metric" and NO_VALUE in result.triage.why:
            raise MetricExtractorError(
                f"{result.triage}; print the metric, give metric_extractor= or eval_fn=, or name another"
            )
        settings = self.ready.settings
        assigned = self.ready.space.space.assignments
        told = [(trial, assigned(trial.point)) for trial in result.trials]
        recs = run_history(self.run_dir, told, settings)
        best = best_of(result.trials, recs, settings)
        ask, found = self.request.final_eval_fn, None
        if ask is not None and best is not None and settings.evaluations.final:
            found = guarded(ask, best, best.job_id)
        final = final_record(settings.evaluations, settings.objectives[0].metric, best=best, measured=found)
        state = {
            "algorithm": settings.algorithm,
            "notes": [*self.ready.notes, *self._notes(result.trials, recs)],
            "outcome": result.outcome.value,
        }
        if result.why:
            state["why"] = result.why
        record = result_record(
            result.trials, recs, settings, evaluations=(baseline, final), state=state,
            total=self._record().total(len(recs)),
        )  # fmt: skip
        if result.outcome is RunOutcome.SUCCEEDED:  # otherwise it is to be gone on with
            self._prune(result.trials, recs)
        if self.ready.wandb is not None:
            try:
                export_to_wandb(self.run_dir, self.ready.wandb)
            except TuneError as error:  # the search is at its end, and its result is worth more
                record["algorithm_state"]["notes"].append(f"nothing was written to Weights & Biases: {error}")
        return record

    def _record(self) -> SearchRecord:
        ready = self.ready
        return SearchRecord(
            kind="run", algorithm=ready.settings.algorithm, objectives=ready.settings.objectives,
            weighing=ready.settings.weighing, trials=ready.plan.trials if ready.plan.exact else None,
            notes=ready.notes,
        )  # fmt: skip

    def _opened(self, _ended: int) -> None:
        write_record(self.run_dir, self._record())

    def _proposed(self, trial: Trial) -> None:
        touch(self.run_dir)
        if self.request.on_recommendation is not None:
            self.request.on_recommendation(self._recommendation(trial, None))

    def _measured(self, trial: Trial, job: str) -> tuple[float, ...] | str:
        folder, job_id = trial_folder(self.run_dir, trial.number), self.backend.job_id(job)
        ran = Ran(
            recommendation=self._recommendation(trial, job_id), job_id=job_id, folder=folder,
            printed=self.backend.logs(job, "stdout")[0],
        )  # fmt: skip
        values = measured(ran, self.request, self.ready.settings, self.sdk)
        if isinstance(values, str):
            return values
        write_json(folder / KEPT_FILE, {"job_id": job_id, "values": values}, durable=False)
        if self.ready.scalarised:
            found = score(values, self.ready.settings)
            return "the weighted score of its values is not finite" if found is None else (found,)
        return tuple(values[objective.metric] for objective in self.ready.objectives)

    def _ended(self, trial: Trial, _best: Trial | None) -> None:
        touch(self.run_dir)
        folder = trial_folder(self.run_dir, trial.number)
        step = step_name(trial.number)
        job_id = newest_jobs(self.run_dir / "jobs", f"{step.replace('/', '-')}-*").get(step) or None
        rec = self._recommendation(trial, job_id)
        if self.request.feedback_fn is not None:
            told = guarded(self.request.feedback_fn, rec, job_id)
            feedback = _json_or_none(told)
            kept = {"job_id": job_id, "values": dict(rec.objective_values), "feedback": feedback}
            write_json(folder / KEPT_FILE, kept, durable=False)
            rec = self._recommendation(trial, job_id)
        if self.request.on_result is not None:
            value = (
                rec.result if len(self.ready.settings.objectives) == 1 else dict(rec.objective_values) or None
            )
            self.request.on_result(rec, value, rec.status)

    def _recommendation(self, trial: Trial, job_id: str | None) -> Recommendation:
        assignments = self.ready.space.space.assignments(trial.point)
        kept = kept_of_run(self.run_dir, trial, assignments, job_id=job_id)
        return recommendation(trial, kept, self.ready.settings)

    def _notes(self, trials: Sequence[Trial], recs: Sequence[Recommendation]) -> list[str]:
        """What a user should know of how promoted trials went."""
        promoted = [rec for trial, rec in zip(trials, recs, strict=True) if trial.parent is not None]
        lost = sum(NO_CHECKPOINT in (rec.failure_reason or "") for rec in promoted)
        afresh = sum(rec.resume_from_job_id is None for rec in promoted)
        notes = []
        if lost:
            notes.append(
                f"{lost} of {len(promoted)} promoted trials found no checkpoint to go on from, and were not "
                "trained"
            )
        if afresh and self.ready.workload.place:  # without a place every one is, and a note says so
            notes.append(
                f"{afresh} of {len(promoted)} promoted trials were trained from the beginning: the run had "
                "deleted what their parents left when it ended before; set automl_delete_intermediate_ckpt "
                "to false in a run that is to be lengthened"
            )
        return notes

    def _prune(self, trials: tuple[Trial, ...], recs: list[Recommendation]) -> None:
        """Delete what trials left that are neither the best nor on the front; failed ones if so wanted."""
        retention, settings = self.ready.settings.retention, self.ready.settings
        delete = getattr(self.sdk, "delete_job_artifacts", None)
        if not retention.delete_intermediate or delete is None:
            return
        best = best_of(trials, recs, settings)
        kept = {best.id if best else -1, *(rec.id for rec in front_of(trials, recs, settings))}
        found = []
        for trial, rec in zip(trials, recs, strict=True):
            spared = trial.state is TrialState.FAILED and retention.keep_failed
            if trial.state.final and rec.job_id and rec.id not in kept and not spared:
                found.append(rec.job_id)
        delete_results(self.run_dir, found, delete)


def _check_members(run_dir: Path, ready: Prepared) -> None:
    """Refuse to go on with a population whose checkpoints are deleted: nothing else stands for them.

    Raises:
        TuneError: The run was at its end, and is to be lengthened.
    """
    plan, gone = ready.plan, deleted_jobs(run_dir)
    if not gone or not plan.copies or plan.rungs is None or not ready.workload.place:
        return
    reached = max((each.trial.budget or 0 for each in view_study(run_dir).trials), default=0)
    if reached < plan.rungs.high:
        raise TuneError(
            f"{run_dir}: {plan.algorithm} goes on from its members' checkpoints, and the run deleted what "
            f"{len(gone)} jobs left when it had ended after {reached} epochs; begin another run, with "
            "automl_delete_intermediate_ckpt set to false if it is to be lengthened"
        )


def _json_or_none(told: Outcome) -> Any:
    """What a callback gave, if it can be stored."""
    try:
        return json.loads(json.dumps(told.value, allow_nan=False))
    except (TypeError, ValueError):
        return None
