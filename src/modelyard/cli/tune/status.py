"""`modelyard tune status`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.tune.studies import gain_lines, opened, shown_assignments, storage_option, trial_line
from modelyard.runs.yard import open_yard
from modelyard.tuning.drivers import Drivers
from modelyard.tuning.trial import TrialState
from modelyard.tuning.view import TrialView


@click.command(name="status")
@click.argument("study")
@storage_option
@yard_option
@json_option
def command(study: str, url: str | None, yard_dir: Path, as_json: bool) -> None:
    """Where a STUDY stands (a name or its beginning): counts, what runs, the best."""
    view = opened(yard_dir, study, url)
    yard = open_yard(yard_dir, create=False)
    drivers = Drivers(folder=yard.runs_dir / view.name / "drivers", yard=yard.id)
    if as_json:
        print_json(view.record())
        return
    counts = ", ".join(f"{count} {state.lower()}" for state, count in view.counts().items() if count)
    click.echo(f"{view.name}: {counts or 'no trial yet'}")
    for objective in view.objectives:
        click.echo(f"  {objective.direction} {objective.metric}, the {objective.take} value of a trial")
    for line in view.earlier:
        click.echo(f"  learns from {line}")
    for each in view.trials:
        if each.trial.state is TrialState.RUNNING:
            step, value = max(each.trial.curve.items(), default=(0, None))
            at = "" if value is None else f"  at step {step}: {value:.6g}"
            click.echo(f"  running: trial {each.trial.number}{at}  {shown_assignments(each.assignments)}")
            neglect = _neglect(each, drivers)
            if neglect:
                click.echo(f"    {neglect}")
    if view.best is not None:
        click.echo(f"  best: {trial_line(view.best.trial, view.best.assignments)}")
    for line in gain_lines(view):
        click.echo(f"  {line}")


def _neglect(view: TrialView, drivers: Drivers) -> str:
    """What to do about a running trial that nobody looks after; empty where somebody does."""
    if drivers.lives(view.driver, view.silent_s):
        return ""
    if not drivers.is_foreign(view.driver):
        return "its tuner has ended; `modelyard tune run` takes it over"
    heard = "never heard of" if view.silent_s is None else f"last heard of {view.silent_s / 60:.0f} min ago"
    return (
        f"its tuner in another yard ({view.driver}) was {heard}; run that again there, or give the trial up "
        "with `modelyard tune run --abandon-foreign`"
    )
