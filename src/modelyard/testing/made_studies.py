"""Studies whose trials are made up, in real storage: for tests of what looks at a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.files import write_json
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Ended, Objective, Proposal, Trial, TrialState
from modelyard.tuning.view import StudyView, TrialView, study_url


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeTrial:
    """What a trial tried and what became of it; one without an end runs."""

    assignments: Mapping[str, Any] = field(default_factory=dict)
    values: tuple[float, ...] | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    state: TrialState = TrialState.COMPLETE
    source: str = "random"
    budget: int | None = None
    parent: int | None = None
    why: str = ""
    cause: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


def make_study(
    run_dir: Path, space: Space, objectives: Sequence[Objective], trials: Sequence[MadeTrial], *,
    confirmation: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write the study's files and its trials into a run's folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / "run.json").exists():
        write_json(run_dir / "run.json", {"run": run_dir.name})
    own = {
        "dimensions": [asdict(each) for each in space.dimensions],
        "objectives": [[each.metric, each.direction, each.take] for each in objectives],
    }
    write_json(run_dir / "study.json", own)
    study = Study(
        study_url(run_dir, None), run_dir.name, dimensions=space.dimensions, lock=run_dir / "study.lock",
        directions=[each.direction for each in objectives],
    )  # fmt: skip
    try:
        for each in trials:
            _make(study, space, each)
        if confirmation is not None:
            study.remember("confirmation", dict(confirmation))
    finally:
        study.close()


def made_view(
    name: str, space: Space, objectives: Sequence[Objective], trials: Sequence[MadeTrial], *,
    confirmation: Mapping[str, Any] | None = None,
) -> StudyView:  # fmt: skip
    """What `view_study` gives of the same study, without a storage and without times."""
    return StudyView(
        name=name, objectives=tuple(objectives), dimensions=space.dimensions,
        trials=tuple(_view(space, number, each) for number, each in enumerate(trials)),
        confirmation=dict(confirmation or {}),
    )  # fmt: skip


def _view(space: Space, number: int, made: MadeTrial) -> TrialView:
    point = space.point(made.assignments)
    ended = made.state.final
    trial = Trial(
        number=number, point=point, source=made.source, state=made.state, budget=made.budget,
        parent=made.parent, values=made.values if made.state is TrialState.COMPLETE else None,
        curve=dict(made.curve), why=made.why if ended else "", cause=made.cause if ended else "",
    )  # fmt: skip
    return TrialView(
        trial=trial, assignments=space.assignments(point), metrics=dict(made.metrics) if ended else {},
        started_at="", ended_at="", job=f"job-{number}" if ended else "",
    )  # fmt: skip


def _make(study: Study, space: Space, made: MadeTrial) -> None:
    point = space.point(made.assignments)
    proposal = Proposal(point=point, source=made.source, budget=made.budget, parent=made.parent)
    number = study.add(proposal, driver="made", assignments=space.assignments(point)).number
    study.report(number, made.curve)
    if made.state is TrialState.RUNNING:
        return
    ended = Ended(
        state=made.state, values=made.values, why=made.why, cause=made.cause,
        attributes={"metrics": dict(made.metrics), "job": f"job-{number}"},
    )  # fmt: skip
    study.tell(number, ended)
