"""The trials of a search as TAO's history has them, with what their folder keeps beside the study's values.

A run keeps it in files of the trial's folder, a session in the trial's attributes. Trials are read before
what is kept of them: that is written before a trial is told to have ended, so that none is ever half told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.core.files import read_json
from modelyard.jobs.backends.sdk_ledger import newest_jobs
from modelyard.tuning.running import step_name, trial_folder
from modelyard.tuning.tao.calls import TRIAL_FILE, goes_on_from
from modelyard.tuning.tao.record import SearchRecord
from modelyard.tuning.tao.result import Kept, Recommendation, recommendation
from modelyard.tuning.tao.settings import TaoSettings
from modelyard.tuning.trial import Trial

#: In the folder of a run's trial: what came of it beside the study's values.
KEPT_FILE = "kept.json"

#: Trials, each with the values that it was given.
Told = Sequence[tuple[Trial, Mapping[str, Any]]]
#: What a study keeps of the trial of a number.
Attributes = Callable[[int], Mapping[str, Any]]


def run_history(run_dir: Path, told: Told, settings: TaoSettings) -> list[Recommendation]:
    """The trials of a run."""
    jobs = newest_jobs(run_dir / "jobs")
    return [
        recommendation(
            trial,
            kept_of_run(run_dir, trial, assignments, job_id=jobs.get(step_name(trial.number)) or None),
            settings,
        )
        for trial, assignments in told
    ]


def kept_of_run(run_dir: Path, trial: Trial, assignments: Mapping[str, Any], *, job_id: str | None) -> Kept:
    """What the run's folder holds of a trial; of one that is not launched yet, what it will go on from."""
    folder = trial_folder(run_dir, trial.number)
    launched = read_json(folder / TRIAL_FILE) if (folder / TRIAL_FILE).exists() else None
    if launched is not None:
        resumes = launched["resumes"] and (launched["resumes"]["job_id"], launched["resumes"]["epoch"])
    else:
        parent = None if trial.parent is None else goes_on_from(trial_folder(run_dir, trial.parent))
        resumes = None if parent is None else (parent.job_id, parent.epoch)
    told = read_json(folder / KEPT_FILE) if (folder / KEPT_FILE).exists() else {}
    return Kept(
        specs=assignments, job_id=told.get("job_id") or job_id, values=told.get("values", {}),
        adjustments=tuple((launched or {}).get("adjustments", ())), feedback=told.get("feedback"),
        resumes=resumes,
    )  # fmt: skip


def session_history(
    trials: Sequence[Trial], attributes: Attributes, record: SearchRecord
) -> list[Recommendation]:
    """The trials of a session."""
    return [
        recommendation(trial, kept_of_session(trial, attributes, record), record.settings) for trial in trials
    ]


def kept_of_session(trial: Trial, attributes: Attributes, record: SearchRecord) -> Kept:
    """What a session keeps of a trial; of one that runs nothing that belongs to its end."""
    own = attributes(trial.number)
    specs = dict(own["assignments"])
    if trial.budget is not None:
        specs |= dict.fromkeys(record.epochs, trial.budget)
    resumes = None
    if trial.parent is not None:
        parent = attributes(trial.parent)
        resumes = (str(parent.get("job_id") or ""), int(parent.get("budget") or 0))
    return Kept(
        specs=specs, job_id=own.get("job_id"), values=own.get("objective_values", {}),
        feedback=own.get("feedback") if trial.state.final else None, resumes=resumes,
    )  # fmt: skip
