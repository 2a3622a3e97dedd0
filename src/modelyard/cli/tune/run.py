"""`modelyard tune run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import (
    EXIT_STATUS,
    backend_option,
    execution_options,
    json_option,
    print_json,
    yard_option,
)
from modelyard.cli.tune.declared import declared, tao_options
from modelyard.cli.tune.studies import gain_lines, shown_assignments, storage_option, trial_line
from modelyard.core.faults import Faults, duration_s
from modelyard.jobs.step import is_name

if TYPE_CHECKING:
    from modelyard.tuning.document import TuneDeclaration
    from modelyard.tuning.result import TuneResult
    from modelyard.tuning.search import Hooks, Search
    from modelyard.tuning.trial import Trial


@click.command(name="run")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@tao_options
@click.option("--trials", type=click.IntRange(min=1), help="In all, those of earlier invocations among them.")
@click.option("--budget", metavar="DURATION", help="Launch nothing after this time, such as 90min or 2h.")
@click.option("--parallel", type=click.IntRange(min=1), help="Trials at a time.")
@click.option("--algorithm", help="The algorithm, in place of the file's.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the search and of the trials.")
@click.option("--name", help="Of the study, in place of the file's.")
@click.option("--resume", is_flag=True, help="Go on with a study that is there; refuse to begin one.")
@click.option("--fresh", is_flag=True, help="Begin anew: a study of this name is set aside.")
@click.option(
    "--abandon-foreign", is_flag=True,
    help="Count running trials of other yards as failed whose tuners were not heard of for 10 minutes.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check everything and show the first trial; nothing is made.")
@backend_option
@storage_option
@yard_option
@json_option
def command(
    file: Path | None, backend: str, yard_dir: Path, *, as_json: bool, dry_run: bool, **told: Any
) -> None:
    """Search as FILE says, a tune.yaml, or TAO's files; or take the search up where it was left.

    Ctrl-C stops the trials that run; the same command goes on. Several invocations of one study share
    its trials.
    """
    from modelyard.runs.execution import open_backend
    from modelyard.runs.yard import open_yard
    from modelyard.tuning.preparing import preflight, prepare
    from modelyard.tuning.tuner import Tuner

    resume, fresh, abandon = told.pop("resume"), told.pop("fresh"), told.pop("abandon_foreign")
    declaration = _changed(declared(file, told), told)
    search = prepare(declaration, yard_dir.absolute() / "runs")
    cpus = declaration.workload.resources.cpus
    execution = execution_options(declaration.limits.parallel * cpus, backend=backend)
    opened = open_backend(execution, search.run_dir / "jobs")
    preflight(search, opened, execution.environment)
    _check_presence(search, resume=resume, fresh=fresh)
    learnt = _learnt(search, fresh=fresh)
    if dry_run:
        _tell_plan(declaration, search, learnt, as_json=as_json)
        return
    if fresh:
        _set_aside(search.run_dir)
    yard = open_yard(yard_dir, create=True)
    with _shown(search, quiet=as_json) as hooks:
        tuner = Tuner(
            search, yard=yard, backend=opened, hooks=hooks, environment=execution.environment,
            abandon_foreign=abandon,
        )  # fmt: skip
        result = tuner.run()
    _tell(result, search, as_json=as_json)
    sys.exit(EXIT_STATUS[result.outcome])


def _changed(declaration: TuneDeclaration, told: Mapping[str, Any]) -> TuneDeclaration:
    """The declaration with what the command line says instead."""
    said = {name: value for name, value in told.items() if value is not None}
    faults = Faults(file="command line")
    if "name" in said and ("/" in said["name"] or not is_name(said["name"])):
        faults.add("--name", said["name"], "cannot name a folder", "use letters, digits, '.', '_', '-'")
    if "budget" in said:
        said["budget_s"] = duration_s(said.pop("budget"))
        if not said["budget_s"]:
            faults.add("--budget", told["budget"], "is not a duration", "write a number and s, min, h or d")
    faults.raise_if_any()
    limits = {name: said.pop(name) for name in ("trials", "budget_s", "parallel", "seed") if name in said}
    return replace(declaration, limits=replace(declaration.limits, **limits), **said)


def _check_presence(search: Search, *, resume: bool, fresh: bool) -> None:
    there = (search.run_dir / "run.json").exists()
    if resume and not there:
        raise click.UsageError(f"--resume: there is no study {search.name!r} in {search.run_dir.parent}")
    if resume and fresh:
        raise click.UsageError("--resume and --fresh exclude each other; give one of them")
    if fresh and search.url:
        raise click.UsageError("--fresh sets a folder aside, not a database; give the study another --name")


def _learnt(search: Search, *, fresh: bool) -> tuple[str, ...]:
    """What a study that begins takes from earlier ones, told before anything is made."""
    from modelyard.tuning.earlier import gathered
    from modelyard.tuning.tuner import sought

    if search.warm_start is None or ((search.run_dir / "study.json").exists() and not fresh):
        return ()
    told = gathered(search.warm_start, sought(search)).told
    for line in told:
        click.echo(f"note: learns from {line}", err=True)
    return told


def _set_aside(run_dir: Path) -> None:
    """Rename the folder of an earlier study of this name, which nobody works on."""
    from modelyard.core.errors import RunBusy
    from modelyard.runs.directory import is_driven
    from modelyard.tuning.drivers import Drivers

    if not run_dir.exists():
        return
    if is_driven(run_dir) or Drivers(folder=run_dir / "drivers", yard="").at_work():
        raise RunBusy(f"{run_dir}: a process works on this study; stop it with `modelyard cancel`")
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.before-{number}")).exists():
        number += 1
    run_dir.rename(aside)


def _tell_plan(declaration: TuneDeclaration, search: Search, learnt: Sequence[str], *, as_json: bool) -> None:
    """What a dry run tells."""
    from modelyard.jobs.command import render_argv, render_shell
    from modelyard.tuning.workload import Attempt, expanded

    assignments = search.space.assignments(search.space.default())
    folder = search.run_dir / "trials" / "0000"
    attempt = Attempt(
        name="trial/0000", folder=folder, number=0, seed=search.limits.seed, assignments=assignments,
        budget=search.rungs.high if search.rungs else None,
    )  # fmt: skip
    render = render_shell if declaration.workload.shell else render_argv
    words = render(
        expanded(declaration.workload.command, assignments), declaration.workload.placeholders(attempt)
    )
    record = {
        "study": search.name,
        "algorithm": declaration.algorithm,
        "trials": search.limits.trials,
        "parallel": search.limits.parallel,
        "objectives": [f"{each.direction} {each.metric} ({each.take})" for each in search.objectives],
        "parameters": {each.name: [d.name for d in each.dimensions] for each in search.space.parameters},
        "first": assignments,
        "command": list(words),
        **({"learns from": list(learnt)} if learnt else {}),
    }
    if as_json:
        print_json(record)
        return
    for name, value in record.items():
        click.echo(f"{name:<11} {value if isinstance(value, str) else json.dumps(value)}")


@contextmanager
def _shown(search: Search, *, quiet: bool) -> Iterator[Hooks]:
    """Hooks that show a search: a live table on a terminal, lines elsewhere."""
    from modelyard.tuning.search import Hooks

    if quiet:
        yield Hooks()
    elif sys.stderr.isatty():
        from modelyard.cli.tune.live import live_table

        with live_table(search) as hooks:
            yield hooks
    else:

        def ended(trial: Trial, best: Trial | None) -> None:
            assignments = search.space.assignments(trial.point)
            is_best = best is not None and best.number == trial.number
            click.echo(trial_line(trial, assignments, best=is_best), err=True)

        yield Hooks(ended=ended)


def _tell(result: TuneResult, search: Search, *, as_json: bool) -> None:
    from modelyard.tuning.view import view_study

    if as_json:
        record = view_study(result.run_dir, search.url).record()
        print_json({**record, "outcome": result.outcome.value, "why": result.why, "dir": str(result.run_dir)})
        return
    if result.why:
        click.echo(f"error: {result.why}", err=True)
    if result.outcome.value == "cancelled":
        click.echo("stopped; take it up again with the same command", err=True)
    if result.best is not None:
        assignments = search.space.assignments(result.best.point)
        values = " ".join(f"{value:.6g}" for value in result.best.values or ())
        click.echo(f"best of {len(result.trials)} trials: {values} (trial {result.best.number})")
        click.echo(f"  {shown_assignments(assignments, most=1000)}")
        for line in gain_lines(view_study(result.run_dir, search.url)):
            click.echo(line)
        click.echo(f"look at it with: modelyard tune report {search.name} --out report.html")
