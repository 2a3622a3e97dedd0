"""What the commands share that look at a study: how it is named, opened, and shown as lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from modelyard.tuning.trial import Trial
    from modelyard.tuning.view import StudyView

F = TypeVar("F", bound=Callable[..., Any])
_SHOWN_CHARS = 100


def storage_option(function: F) -> F:
    """`--storage URL`."""
    return click.option(
        "--storage", "url", metavar="URL", envvar="MODELYARD_STORAGE",
        help="Where the trials are stored, such as postgresql://...; without it, in the run's folder.",
    )(function)  # fmt: skip


def opened(yard_dir: Path, study: str, url: str | None) -> StudyView:
    """The study of this name, or whose name begins so."""
    from modelyard.runs.view import find_run
    from modelyard.runs.yard import open_yard
    from modelyard.tuning.view import view_study

    row = find_run(open_yard(yard_dir, create=False), study)
    return view_study(Path(row.dir), url)


def shown_assignments(assignments: Mapping[str, Any], *, most: int = _SHOWN_CHARS) -> str:
    """Values by name in one line, shortened."""
    text = " ".join(f"{name}={shown_value(value)}" for name, value in assignments.items())
    return text if len(text) <= most else text[: most - 3] + "..."


def shown_value(value: Any) -> str:
    """A value for a person: numbers to six digits."""
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def trial_line(trial: Trial, assignments: Mapping[str, Any], *, best: bool = False) -> str:
    """One trial as one line."""
    values = " ".join(f"{value:.6g}" for value in trial.values or ())
    standing = values or trial.state.value.lower()
    told = trial.why if trial.values is None and trial.why else shown_assignments(assignments)
    broken = "" if trial.feasible else "  breaks a constraint"
    source = "" if trial.source in ("", "optuna") else f"  ({trial.source})"
    mark = "  best so far" if best else ""
    return f"trial {trial.number:<4} {standing:<12} {told}{source}{broken}{mark}"


def gain_lines(view: StudyView) -> list[str]:
    """What the search gained over the default configuration, as far as it is known."""
    from modelyard.tuning.reporting.insights import default_like_best

    best, default = view.best, default_like_best(view)
    if best is None or best.trial.value is None:
        return []
    if default is None or default.trial.value is None:
        return ["the default configuration has no value with the budget of the best"]
    if best.trial.number == default.trial.number:
        return ["the default configuration is the best so far"]
    lines = [f"default: {default.trial.value:.6g}, best: {best.trial.value:.6g} in the search itself"]
    gain = view.confirmation.get("gain")
    if gain and view.confirmation.get("trial") == best.trial.number:
        count = len(view.confirmation["seeds"])
        low, high = gain["low"], gain["high"]
        span = "" if low is None else f", 95 % interval {low:.6g} to {high:.6g}"
        lines.append(f"gained on {count} other seeds: {gain['mean']:.6g} on average{span}")
    return lines
