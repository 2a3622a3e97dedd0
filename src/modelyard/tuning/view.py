"""What a study holds, for those who look at it: read from the storage alone, while it runs or after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.core.files import read_json
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.result import best_trial, pareto_front
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Direction, Objective, Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialView:
    """A trial with what it was told and when."""

    trial: Trial
    assignments: Mapping[str, Any]
    # Other metrics that it reported, the last value of each.
    metrics: Mapping[str, float]
    started_at: str
    ended_at: str
    # The key of the job that counted; empty while it runs.
    job: str
    # Who looks after it while it runs: the yard's id and a number; and how long that was not heard of.
    driver: str = ""
    silent_s: float | None = None

    def record(self) -> dict[str, Any]:
        """The trial as a JSON value."""
        trial = self.trial
        return {
            "number": trial.number, "state": trial.state.value, "source": trial.source,
            "values": None if trial.values is None else list(trial.values),
            "assignments": dict(self.assignments), "metrics": dict(self.metrics), "why": trial.why,
            "budget": trial.budget, "parent": trial.parent, "started_at": self.started_at,
            "ended_at": self.ended_at, "job": self.job,
            "curve": [[step, value] for step, value in trial.curve.items()],
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """A study as it stands."""

    name: str
    objectives: tuple[Objective, ...]
    trials: tuple[TrialView, ...]
    # The axes of the space, in its order.
    dimensions: tuple[Dimension, ...] = ()
    # What was measured again with other seeds; empty where nothing was.
    confirmation: Mapping[str, Any] = field(default_factory=dict)
    # Of each earlier study from which this one learns: how many trials were taken, and why not others.
    earlier: tuple[str, ...] = ()

    @property
    def best(self) -> TrialView | None:
        """The best by the first objective; None where no trial may be called best."""
        best = best_trial([each.trial for each in self.trials], self.objectives[0])
        return None if best is None else self.trials[best.number]

    @property
    def ranked(self) -> tuple[TrialView, ...]:
        """All trials, the best first: those with a value, then those stopped, those that run, the failed."""
        sign = self.objectives[0].sign
        order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAILED)
        largest = max((each.trial.budget or 0 for each in self.trials), default=0)
        return tuple(
            sorted(
                self.trials,
                key=lambda each: (
                    order.index(each.trial.state),
                    largest - (each.trial.budget or 0),
                    sign * (each.trial.value or 0.0),
                    each.trial.number,
                ),
            )
        )

    @property
    def front(self) -> tuple[TrialView, ...]:
        """The Pareto front; with one objective the best alone."""
        front = pareto_front([each.trial for each in self.trials], self.objectives)
        return tuple(self.trials[each.number] for each in front)

    @property
    def default(self) -> TrialView | None:
        """The trial of the default configuration, if it has a value."""
        for each in self.trials:
            if each.trial.source == "default" and each.trial.value is not None:
                return each
        return None

    def counts(self) -> dict[str, int]:
        """How many trials stand so."""
        return {state.value: sum(each.trial.state is state for each in self.trials) for state in TrialState}

    def record(self) -> dict[str, Any]:
        """The study as a JSON value."""
        best = self.best
        return {
            "study": self.name,
            "objectives": [
                {"metric": each.metric, "direction": each.direction, "take": each.take}
                for each in self.objectives
            ],
            "counts": self.counts(),
            "best": None if best is None else best.record(),
            "front": [each.trial.number for each in self.front],
            "confirmation": dict(self.confirmation),
            "earlier": list(self.earlier),
        }


def study_url(run_dir: Path, url: str | None) -> str:
    """Where a study's trials are stored: the URL given, or the file in the run's folder."""
    return url or f"sqlite:///{run_dir / 'study.db'}"


def view_study(run_dir: Path, url: str | None = None) -> StudyView:
    """Read a study of a run's folder.

    Raises:
        TuneError: There is no study there.
    """
    if not (run_dir / "run.json").exists() or (url is None and not (run_dir / "study.db").exists()):
        raise TuneError(f"{run_dir}: there is no study here; `modelyard status` lists the runs of a yard")
    if not (run_dir / "study.json").exists():
        raise TuneError(
            f"{run_dir}: the study is being made and has no trial yet; look again in a moment, or, "
            "where no tuner runs, begin it with `modelyard tune run`"
        )
    name = read_json(run_dir / "run.json")["run"]
    objectives = _objectives(run_dir)
    study = Study(
        study_url(run_dir, url), name, directions=[each.direction for each in objectives], dimensions=(),
        lock=run_dir / "study.lock",
    )  # fmt: skip
    try:
        trials = tuple(_view(study, trial) for trial in study.trials())
        return StudyView(
            name=name, objectives=objectives, trials=trials, dimensions=_dimensions(run_dir),
            confirmation=study.remembered("confirmation") or {},
            earlier=tuple((study.remembered("warm_start") or {}).get("told", ())),
        )  # fmt: skip
    finally:
        study.close()


def _objectives(run_dir: Path) -> tuple[Objective, ...]:
    return tuple(
        Objective(metric=metric, direction=_direction(direction), take="best" if take == "best" else "last")
        for metric, direction, take in read_json(run_dir / "study.json")["objectives"]
    )


def _dimensions(run_dir: Path) -> tuple[Dimension, ...]:
    kept = read_json(run_dir / "study.json").get("dimensions", ())
    return tuple(Dimension(**{**each, "choices": tuple(each["choices"])}) for each in kept)


def _direction(word: str) -> Direction:
    return "maximize" if word == "maximize" else "minimize"


def _view(study: Study, trial: Trial) -> TrialView:
    kept = study.attributes(trial.number)
    started_at, ended_at = study.times(trial.number)
    driver = "" if trial.state.final else str(kept.get("driver", ""))
    return TrialView(
        trial=trial, assignments=kept.get("assignments", {}), metrics=kept.get("metrics", {}),
        started_at=started_at, ended_at=ended_at, job=kept.get("job", ""),
        driver=driver, silent_s=study.silent_s(driver) if driver else None,
    )  # fmt: skip
