"""`AutoML`: TAO AutoML's lower level, for callers that run the trainings themselves. Ask, train, tell.

    automl = AutoML("workspace", "toy", specs, {"algorithm": "tpe", "metric": "loss"}, search_schema=schema)
    while not automl.is_complete():
        for rec in automl.next_recommendation():
            automl.report_result(rec.id, train(rec.specs))
    print(automl.get_best().specs)

    WORKSPACE/automl_SESSION/    a run of the yard WORKSPACE, with the study's files
        automl.json              what `query_status` needs to know

It proposes by the same algorithms as `AutoMLRunner` and launches nothing. A value is only known at the end of
a training, so an algorithm with budgets gives each rung as a recommendation of its own, whose specs hold its
epochs and which says whose checkpoint it goes on from. To be used in one thread of one process; a session
that is resumed gives out again what nobody has reported.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, utc_now
from modelyard.core.errors import TuneError
from modelyard.core.faults import Faults
from modelyard.core.files import write_json
from modelyard.jobs.plan import Plan
from modelyard.runs.directory import create_run
from modelyard.runs.yard import open_yard
from modelyard.tuning.study import Study
from modelyard.tuning.tao.exporting import WandbWish, export_to_wandb, read_wandb
from modelyard.tuning.tao.history import Attributes, kept_of_session
from modelyard.tuning.tao.keeping import needed, state_of, whole
from modelyard.tuning.tao.planning import SearchPlan, planned
from modelyard.tuning.tao.preparing import made_schema, sought
from modelyard.tuning.tao.record import SESSIONS, SearchRecord, newest, touch, write_record
from modelyard.tuning.tao.result import (
    Recommendation,
    best_of,
    progress_record,
    recommendation,
    score,
    status_record,
    unbeaten,
    values_of,
)
from modelyard.tuning.tao.schema import SchemaRules, TaoSpace, read_tao_space
from modelyard.tuning.tao.settings import TaoSettings, read_tao_settings
from modelyard.tuning.tao.specs import budget_keys
from modelyard.tuning.tao.status import query_status
from modelyard.tuning.trial import Ended, Objective, Trial, TrialState
from modelyard.tuning.view import study_url

__all__ = ["AskedRecommendation", "AutoML", "AutoMLRequest", "query_status"]

_DRIVER = "caller"
#: What `get_status` has of the whole status, beside its progress.
_SNAPSHOT = ("best", "recommendations", "pareto_front", "active_rec_ids")
_WELL = frozenset({"success", "done"})


@dataclass(frozen=True, slots=True)
class AutoMLRequest:
    """The arguments of `AutoML`, by TAO's names, in its order and with its defaults."""

    workspace: str | Path
    network: str
    # The specification that trials change.
    train_specs: Mapping[str, Any]
    settings: Mapping[str, Any]
    automl_hyperparameters: Sequence[str] | None = None
    custom_param_ranges: Mapping[str, Mapping[str, Any]] | None = None
    action: str = "train"
    # Whether to go on with the session of the settings, or without one with the newest.
    resume: bool = False
    wandb_config: Mapping[str, Any] | None = None
    # None: the schema that nvidia-tao-automl makes of the network.
    search_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedRecommendation(Recommendation):
    """A recommendation whose job the caller launches; it is as it was when it was given out."""

    best_epoch_number: Any = ""
    note: Callable[[str], None] = field(default=lambda _job_id: None, repr=False)

    def assign_job_id(self, job_id: str) -> None:
        """Let it be known which job trains it, so that those that go on from it can say so."""
        self.note(job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """What a session searches, checked."""

    settings: TaoSettings
    space: TaoSpace
    plan: SearchPlan
    objectives: tuple[Objective, ...]
    specs: Mapping[str, Any]
    wandb: WandbWish | None


class AutoML:
    """One session of asking and telling."""

    def __init__(
        self, *given: Any, environment: Mapping[str, str] | None = None, clock: Clock = utc_now, **named: Any
    ) -> None:  # fmt: skip
        """Begin a session, or go on with one; `AutoMLRequest` has the arguments.

        Raises:
            DocumentError: The settings, ranges or schema are wrong; nothing has been made.
            TuneError: The algorithm cannot do what is asked, there is nothing to resume, or there is.
        """
        request = AutoMLRequest(*given, **named)
        known = os.environ if environment is None else environment
        self._session = _session(request, known)
        self.run_dir = _folder(request, self._session.settings, clock)
        space = self._session.space.space
        self._searcher = self._session.plan.searcher(
            self._session.settings, space, self._session.objectives, run_dir=self.run_dir, environment=known
        )  # fmt: skip
        yard = open_yard(self.run_dir.parent, create=True)
        plan = Plan(name=self.run_dir.name, run_dir=str(self.run_dir), steps=())
        create_run(yard, self.run_dir, run=self.run_dir.name, kind="tune", source="AutoML", plan=plan)
        self._study = Study(
            study_url(self.run_dir, None), self.run_dir.name, lock=self.run_dir / "study.lock",
            directions=[each.direction for each in self._session.objectives], dimensions=space.dimensions,
        )  # fmt: skip
        self._settle_identity(request)
        self._record = _record(self._session)
        write_record(self.run_dir, self._record)
        # What was given out by a process that is no more.
        self._again = [trial for trial in self._study.trials() if not trial.state.final]

    def next_recommendation(self) -> list[Recommendation]:
        """What is to be trained next: as many as may run at a time, less those that do; it may be none."""
        found, self._again = self._again, []
        with self._study.alone():
            while True:
                trials = self._study.trials()
                running = sum(not trial.state.final for trial in trials)
                trial = self._proposed(trials) if running < self._session.settings.parallel else None
                if trial is None:
                    break
                found.append(trial)
        if found:
            touch(self.run_dir)
        return [self._asked(trial, self._study.attributes) for trial in found]

    def report_result(
        self, rec_id: int, metric_value: Any, best_epoch: Any = None, status: str = "success",
        feedback: Any = None,
    ) -> None:  # fmt: skip
        """Tell how a training ended; the first word stands.

        Args:
            rec_id: Of the recommendation.
            metric_value: Its value; of several objectives a mapping. What is no finite number is a failure.
            best_epoch: Kept with it.
            status: success or done; anything else is a failure, which has no value.
            feedback: A JSON value, kept with it.

        Raises:
            TuneError: There is no such recommendation.
        """
        if not 0 <= rec_id < len(self._study.trials()):
            raise TuneError(f"{self.run_dir.name}: there is no recommendation {rec_id}; give the id of one")
        attributes = {"best_epoch": best_epoch, "feedback": feedback}
        self._study.tell(rec_id, self._ended(metric_value, status, attributes))
        touch(self.run_dir)

    def get_best(self) -> Recommendation | None:
        """The best by score of the largest budget that was trained; None where nothing succeeded."""
        trials, recs = self._all()
        return best_of(trials, recs, self._session.settings)

    def get_progress(self) -> dict[str, Any]:
        """How far the search has come, with the keys of the result's `progress`."""
        trials, recs = self._all()
        total = self._record.total(len(trials))
        return progress_record(trials, recs, self._session.settings, total=total)

    def get_history(self) -> list[Recommendation]:
        """All recommendations so far."""
        return self._all()[1]

    def get_pareto_front(self) -> list[Recommendation]:
        """Those that no other beats in every objective; of one objective all that succeeded."""
        trials, recs = self._all()
        return unbeaten(trials, recs, self._session.settings)

    def get_required_checkpoint_job_ids(self) -> set[str]:
        """The jobs, as far as they were assigned, whose checkpoints the search may still go on from."""
        if self.is_complete():
            return set()
        numbers = needed(self._study.trials(), self._session.plan)
        found = (self._study.attributes(number).get("job_id") for number in numbers)
        return {str(job_id) for job_id in found if job_id}

    def get_verified_full_fidelity_best(self) -> Recommendation | None:
        """The best of those that were trained to the end of the largest budget; None before there is one."""
        trials, recs = self._all()
        return best_of(whole(trials, self._session.plan), recs, self._session.settings)

    def get_algorithm_state(self) -> dict[str, Any]:
        """What the algorithm decides from, as a JSON value: its options, its seed and all trials."""
        session = self._session
        return state_of(self._study.trials(), session.plan, seed=session.settings.seed)

    def get_status(self) -> dict[str, Any]:
        """A snapshot: progress, best, recommendations, pareto_front and active_rec_ids.

        `query_status` tells other processes the same, and more.
        """
        trials, recs = self._all()
        settings, total = self._session.settings, self._record.total(len(trials))
        whole = status_record(trials, recs, settings, total=total, name=self.run_dir.name)
        progress = progress_record(trials, recs, settings, total=total)
        return {"progress": progress, **{name: whole[name] for name in _SNAPSHOT}}

    def is_complete(self) -> bool:
        """Whether everything has been told, and nothing more will be asked for."""
        trials, plan = self._study.trials(), self._session.plan
        if any(not trial.state.final for trial in trials):
            return False
        if len(trials) >= plan.trials:
            return True
        return not plan.exact and self._searcher.propose(trials, len(trials)) is None

    def finish(self) -> None:
        """Close the session; what `wandb_config` asks for is written."""
        self._study.close()
        if self._session.wandb is not None:
            export_to_wandb(self.run_dir, self._session.wandb)

    @property
    def wandb_group(self) -> str:
        """The group that the session's runs have in Weights & Biases."""
        return self.run_dir.name

    def _proposed(self, trials: Sequence[Trial]) -> Trial | None:
        """The next trial, stored; the first is the default configuration."""
        if len(trials) >= self._session.plan.trials:
            return None
        proposal = self._searcher.propose(trials, len(trials))
        if proposal is None:
            return None
        space = self._session.space.space
        first = not trials
        point = space.repair(space.default() if first else proposal.point)
        named = {"source": "default"} if first else {}
        own = {name: getattr(proposal, name) for name in ("source", "budget", "parent", "notes")}
        return self._study.add(
            type(proposal)(**{**own, **named, "point": point}), driver=_DRIVER,
            assignments=space.assignments(point),
        )  # fmt: skip

    def _ended(self, value: Any, status: str, attributes: Mapping[str, Any]) -> Ended:
        settings = self._session.settings
        if status not in _WELL:
            return Ended(state=TrialState.FAILED, why=f"reported as {status}", attributes=attributes)
        values = values_of(value, [each.metric for each in settings.objectives])
        if isinstance(values, str):
            why = f"{values} was reported"
            return Ended(state=TrialState.FAILED, why=why, cause="metric", attributes=attributes)
        found = [values.get(each.metric, score(values, settings)) for each in self._session.objectives]
        numbers = tuple(each for each in found if each is not None)
        if len(numbers) < len(found):
            why = "the weighted score of its values is not finite"
            return Ended(state=TrialState.FAILED, why=why, cause="metric", attributes=attributes)
        return Ended(
            state=TrialState.COMPLETE, values=numbers, attributes={**attributes, "objective_values": values}
        )

    def _all(self) -> tuple[tuple[Trial, ...], list[Recommendation]]:
        trials = self._study.trials()
        noted = [self._study.attributes(trial.number) for trial in trials]
        return trials, [self._asked(trial, noted.__getitem__) for trial in trials]

    def _asked(self, trial: Trial, attributes: Attributes) -> Recommendation:
        kept = kept_of_session(trial, attributes, self._record)
        plain = recommendation(trial, kept, self._session.settings)
        return AskedRecommendation(
            **{each.name: getattr(plain, each.name) for each in fields(plain)},
            best_epoch_number=attributes(trial.number).get("best_epoch") or "",
            note=lambda job_id: self._note_job(trial.number, job_id),
        )

    def _note_job(self, number: int, job_id: str) -> None:
        self._study.note(number, job_id=job_id)
        touch(self.run_dir)

    def _settle_identity(self, request: AutoMLRequest) -> None:
        """Refuse to go on with a session of something else."""
        session = self._session
        own = {
            "dimensions": [each.record() for each in session.space.space.dimensions],
            "objectives": [[each.metric, each.direction, each.take] for each in session.objectives],
            "algorithm": session.plan.identity, "specification": session.specs,
            "network": [request.network, request.action],
        }  # fmt: skip
        changed = self._study.identify(own)
        if changed:
            self._study.close()
            raise TuneError(
                f"{self.run_dir.name}: the session was begun with another {' and '.join(changed)}; "
                "give this one another session_id"
            )
        write_json(self.run_dir / "study.json", own)


def _signature() -> inspect.Signature:
    kind = inspect.Parameter
    own = inspect.signature(AutoMLRequest).parameters.values()
    return inspect.Signature([kind("self", kind.POSITIONAL_ONLY), *own])


AutoML.__init__.__signature__ = _signature()  # type: ignore[attr-defined]


def _session(request: AutoMLRequest, environment: Mapping[str, str]) -> _Session:
    settings = read_tao_settings(request.settings)
    faults = Faults(file="AutoML")
    schema = request.search_schema or made_schema(request.network, request.action)
    if schema is None:
        remedy = "give search_schema, or install nvidia-tao-automl, which makes those of TAO's own models"
        faults.add("search_schema", None, f"is missing, and nothing is known of {request.network}", remedy)
    plan = planned(settings, rung_jobs=True, environment=environment, faults=faults)
    wandb = read_wandb(request.wandb_config, environment, faults)
    faults.raise_if_any()
    assert schema is not None
    rules = SchemaRules(allow_wider=True, allow_disabled=settings.allow_disabled)
    ranges = {**settings.ranges, **(request.custom_param_ranges or {})}
    names = list(request.automl_hyperparameters or ()) or None
    space = read_tao_space(schema, names, ranges, dict(request.train_specs), rules=rules)
    return _Session(
        settings=settings, space=space, plan=plan, objectives=sought(settings), specs=request.train_specs,
        wandb=wandb,
    )  # fmt: skip


def _record(session: _Session) -> SearchRecord:
    settings, plan = session.settings, session.plan
    return SearchRecord(
        kind="session", algorithm=settings.algorithm, objectives=settings.objectives,
        weighing=settings.weighing, trials=plan.trials if plan.exact else None,
        epochs=tuple(budget_keys(session.specs)), notes=(*settings.notes, *session.space.notes),
    )  # fmt: skip


def _folder(request: AutoMLRequest, settings: TaoSettings, clock: Clock) -> Path:
    """The folder of the session: its own, or where none is named that of the newest, or a fresh one."""
    base = Path(request.workspace).absolute()
    if settings.session_id is not None:
        folder = base / f"automl_{settings.session_id}"
        if folder.parent != base:
            raise TuneError(f"session_id: {settings.session_id!r} is no name of a folder; take / out of it")
        if request.resume != (folder / "run.json").exists():
            trouble = "there is no such session to resume" if request.resume else "this session is there"
            remedy = "leave resume out to begin it" if request.resume else "say resume=True to go on with it"
            raise TuneError(f"{folder}: {trouble}; {remedy}")
        return folder
    if request.resume:
        found = newest(base, (SESSIONS,))
        if found is None:
            raise TuneError(f"{base}: there is no session to resume here; leave resume out to begin one")
        return found
    name = f"automl_{clock():%Y%m%d_%H%M%S}"
    numbered = (f"{name}_{number}" for number in range(2, 10_000))
    return next(path for path in map(base.joinpath, (name, *numbered)) if not path.exists())
