"""A study in MLflow: a run for the study, and nested in it a run for every trial.

Runs are found again by the tag `modelyard.key`. MLflow's client library is enough: `mlflow-skinny`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from modelyard.core.errors import TuneError
from modelyard.core.mlflow_service import cut, refusals, without_password
from modelyard.tuning.exporters import (
    Exported,
    ended,
    facts_of,
    results_of,
    running,
    study_key,
    text_of,
    trial_key,
)
from modelyard.tuning.trial import TrialState
from modelyard.tuning.view import StudyView, TrialView

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

T = TypeVar("T")

_KEY, _PARENT = "modelyard.key", "mlflow.parentRunId"
_EXPERIMENT = "modelyard"
#: What MLflow takes at most: of a text in a tag or parameter, and of each in one request.
_TAG_CHARS, _PARAM_CHARS, _NAME_CHARS = 5000, 6000, 240
_PARAMS, _METRICS = 100, 1000
_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAILED: "FAILED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowExporter:
    """Writes studies to an MLflow server, or to a database that one can read."""

    # As MLflow has it, such as http://host:5000 or sqlite:///mlflow.db; without it, what MLflow finds itself.
    tracking_uri: str | None = None
    # Without it MLFLOW_EXPERIMENT_NAME, or `modelyard`.
    experiment: str | None = None

    def export(self, view: StudyView) -> Exported:
        """See `Exporter.export`."""
        client_of = _client_class()
        added: tuple[int, ...] = ()
        known: tuple[int, ...] = ()
        with refusals(self.tracking_uri, "the study", TuneError):
            client = client_of(tracking_uri=self.tracking_uri)
            if ended(view):
                writer = _Writer(client, _experiment(client, self.experiment), view)
                added, known = writer.trials()
                writer.study()
        return Exported(
            place=without_password(client.tracking_uri), added=added, known=known, running=running(view)
        )  # fmt: skip


class _Writer:
    """Writes one study into one experiment."""

    def __init__(self, client: MlflowClient, experiment: str, view: StudyView) -> None:
        self._client, self._experiment, self._view = client, experiment, view
        self._params = allowed_names(name for each in view.trials for name in each.assignments)
        curve = view.objectives[0].metric
        results = (name for each in view.trials for name in results_of(view, each))
        self._metrics = allowed_names([curve, f"best/{curve}", *results])
        self._parent = self._found_or_made()

    def trials(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Write the trials that are not there; the numbers of those written, and of those there before."""
        whole = self._whole()
        added, known = [], []
        for each in ended(self._view):
            key = trial_key(self._view, each)
            if key in whole:
                known.append(each.trial.number)
            else:
                self._write(each, key)
                added.append(each.trial.number)
        return tuple(added), tuple(known)

    def study(self) -> None:
        """Say how the study stands, unless that is what its run says."""
        view, run_id = self._view, self._parent.info.run_id
        counts = json.dumps(view.counts())
        if self._parent.data.tags.get("modelyard.counts") == counts:
            return
        best, done = view.best, ended(view)
        if best is not None:
            self._client.set_tag(run_id, "modelyard.best_trial", best.trial.number)
            name, at = self._metrics[f"best/{view.objectives[0].metric}"], _milliseconds(best.ended_at)
            self._client.log_batch(run_id, metrics=_points({name: best.trial.value or 0.0}, len(done), at))
        if running(view):
            self._client.update_run(run_id, status="RUNNING")
        else:
            last = max((each.ended_at for each in done), default="", key=lambda at: _milliseconds(at) or 0)
            self._client.set_terminated(run_id, status="FINISHED", end_time=_milliseconds(last))
        self._client.set_tag(run_id, "modelyard.counts", counts)

    def _found_or_made(self) -> Run:
        """The run of the study."""
        key, view = study_key(self._view), self._view
        found = self._search(f"tags.`{_KEY}` = '{key}'")
        goals = [[each.metric, each.direction] for each in view.objectives]
        tags = {_KEY: key, "modelyard.study": view.name, "modelyard.objectives": json.dumps(goals)}
        began = _milliseconds(view.trials[0].started_at) if view.trials else None
        return found[0] if found else self._client.create_run(
            self._experiment, start_time=began, tags=tags, run_name=view.name
        )  # fmt: skip

    def _whole(self) -> set[str]:
        """Keys of the trials that were written to their end; half-written runs are deleted."""
        whole = set()
        for run in self._search(f"tags.`{_PARENT}` = '{self._parent.info.run_id}'"):
            if run.info.status == "RUNNING":
                self._client.delete_run(run.info.run_id)
            else:
                whole.add(run.data.tags.get(_KEY, ""))
        return whole

    def _write(self, each: TrialView, key: str) -> None:
        """Write a trial. Its run gets its status last: one that says RUNNING was half written."""
        from mlflow.entities import Param

        facts = {f"modelyard.{name}": cut(text_of(fact), _TAG_CHARS)
                 for name, fact in facts_of(self._view, each).items()}  # fmt: skip
        run = self._client.create_run(
            self._experiment, start_time=_milliseconds(each.started_at),
            tags={**facts, _KEY: key, _PARENT: self._parent.info.run_id},
            run_name=f"{self._view.name}-{each.trial.number}",
        )  # fmt: skip
        params = [Param(self._params[name], cut(text_of(value), _PARAM_CHARS))
                  for name, value in each.assignments.items()]  # fmt: skip
        for some in _portions(params, _PARAMS):
            self._client.log_batch(run.info.run_id, params=some)
        for points in _portions(self._points(each), _METRICS):
            self._client.log_batch(run.info.run_id, metrics=points)
        status, at = _STATUS[each.trial.state], _milliseconds(each.ended_at)
        self._client.set_terminated(run.info.run_id, status=status, end_time=at)

    def _points(self, each: TrialView) -> list[Metric]:
        """The curve, and the single values at its last step. When a step was is not known: all at the end."""
        curve, at = each.trial.curve, _milliseconds(each.ended_at)
        first = self._metrics[self._view.objectives[0].metric]
        points = [point for step, value in curve.items() for point in _points({first: value}, step, at)]
        results = {self._metrics[name]: value for name, value in results_of(self._view, each).items()}
        return points + _points(results, max(curve, default=0), at)

    def _search(self, query: str) -> list[Run]:
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment], query, page_token=token)
            found += page
            token = page.token
            if not token:
                return found


def allowed_names(names: Iterable[str]) -> dict[str, str]:
    """Names that MLflow takes, by the names they stand for: other signs become `_`, and no two are one."""
    allowed: dict[str, str] = {}
    for name in names:
        if name in allowed:
            continue
        wanted = tried = _allowed(name)
        count = 1
        while tried in allowed.values():
            count += 1
            tried = f"{wanted}_{count}"
        allowed[name] = tried
    return allowed


def _allowed(name: str) -> str:
    plain = re.sub(r"[^\w.\- :/]", "_", name)[:_NAME_CHARS]
    if posixpath.normpath(plain) != plain or plain.startswith(("/", "..")) or plain == ".":
        plain = "_" + re.sub(r"[/.]", "_", plain)
    return plain


def _portions(things: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), most):
        yield things[start : start + most]


def _points(values: Mapping[str, float], step: int, at: int | None) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(name, value, at or 0, step) for name, value in values.items()]


def _client_class() -> type[MlflowClient]:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise TuneError(
            "a study cannot be exported to MLflow without its client; "
            "install it with pip install 'modelyard[mlflow]'"
        ) from error
    return MlflowClient


def _experiment(client: MlflowClient, name: str | None) -> str:
    """The identity of the experiment, which is made where it is missing."""
    from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME

    set_elsewhere: str | None = MLFLOW_EXPERIMENT_NAME.get()  # type: ignore[no-untyped-call]
    name = name or set_elsewhere or _EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name)
    if found.lifecycle_stage == "deleted":
        raise TuneError(f"{name}: this experiment was deleted; restore it, or give another --experiment")
    return found.experiment_id


def _milliseconds(moment: str) -> int | None:
    """A moment as MLflow counts; None where there is none."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000) if moment else None
