"""What the commands share that measure candidates of a merge: their options, and how trials are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelyard.cli.options import (
    EXIT_STATUS,
    backend_option,
    execution_options,
    json_option,
    print_json,
    yard_option,
)
from modelyard.cli.progress import counting_bars

if TYPE_CHECKING:
    from modelyard.lifecycle.merge_search import SearchResult, Told
    from modelyard.lifecycle.merge_study import PreparedSearch, SearchOptions
    from modelyard.merging.search_space import TrialResult

F = TypeVar("F", bound=Callable[..., Any])
_SHOWN_CHARS = 100


def measuring_options(function: F) -> F:
    """The options of a command that measures candidates, for `run_search`."""
    decorators = (
        click.option(
            "--objective", required=True, metavar="COMMAND",
            help="Measures a candidate: {merged} is its folder, {trial} its number. The last line that it "
            'prints and that is a number counts, or JSON such as {"objective": 0.5}.',
        ),
        click.option("--shell", is_flag=True, help="Run the command by sh -c."),
        click.option(
            "--direction", type=click.Choice(("minimize", "maximize")), default="minimize",
            show_default=True, help="Which values are better.",
        ),
        click.option(
            "--parallel", type=click.IntRange(min=1), default=1, show_default=True,
            help="Candidates at a time.",
        ),
        click.option(
            "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each merge."
        ),
        click.option(
            "--cpus", type=click.IntRange(min=1), default=1, show_default=True, help="For each COMMAND."
        ),
        click.option(
            "--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="For each COMMAND."
        ),
        click.option(
            "--timeout", "timeout_s", type=float, metavar="SECONDS", help="Longest time of a COMMAND."
        ),
        click.option("--overwrite", is_flag=True, help="Replace OUT once the best is whole."),
        click.option(
            "--plot", type=click.Path(path_type=Path), metavar="FILE.png",
            help="Also a picture of the trials.",
        ),
        click.option("--dry-run", is_flag=True, help="Check everything and tell what would be searched."),
        backend_option,
        yard_option,
        json_option,
    )  # fmt: skip
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def run_search(file: Path, told: dict[str, Any]) -> None:
    """Search as the options say, show the trials, and leave with the outcome's status."""
    from modelyard.jobs.step import Resources
    from modelyard.lifecycle.merge_search import prepare_search, search
    from modelyard.lifecycle.merge_study import SearchOptions
    from modelyard.runs.yard import open_yard

    as_json, plot, dry_run = (told.pop(name) for name in ("as_json", "plot", "dry_run"))
    yard_dir, backend = told.pop("yard_dir"), told.pop("backend")
    resources = Resources(cpus=told.pop("cpus"), gpus=told.pop("gpus"))
    options = SearchOptions(resources=resources, **told)
    slots = options.parallel * max(resources.cpus, options.threads)
    execution = execution_options(slots, backend=backend)
    prepared = prepare_search(file, yard_dir.absolute() / "runs", options, execution)
    if plot is not None:
        _check_plot(plot)
    if dry_run:
        _show(prepared, as_json=as_json)
        return
    with _shown(options, quiet=as_json) as observer:
        result = search(open_yard(yard_dir, create=True), prepared, execution, told=observer)
    if plot is not None:
        _draw(plot, result, options)
    _tell(result, as_json=as_json)
    sys.exit(EXIT_STATUS[result.outcome])


def _show(prepared: PreparedSearch, *, as_json: bool) -> None:
    """What a dry run tells."""
    record = {
        "run": prepared.run,
        "trials": prepared.options.trials,
        "dimensions": [name for entry in prepared.space.entries for name in entry.dimensions],
        "steps_of_a_trial": [
            step.argv[0] if step.shell else list(step.argv) for step in prepared.work.steps(0)
        ],
    }
    if as_json:
        print_json(record)
        return
    for name, value in record.items():
        click.echo(f"{name.replace('_', ' '):<17} {json.dumps(value) if isinstance(value, list) else value}")


@contextmanager
def _shown(options: SearchOptions, *, quiet: bool) -> Iterator[Told]:
    """An observer that shows each trial: under a bar on a terminal, as a line elsewhere."""
    if quiet:
        yield lambda *_: None
    elif sys.stderr.isatty():
        with _bar(options.trials) as observer:
            yield observer
    else:
        yield lambda trial, best: click.echo(_line(trial, best), err=True)


@contextmanager
def _bar(total: int) -> Iterator[Told]:
    with counting_bars() as bars:
        task = bars.add_task("trials", total=total)

        def observe(trial: TrialResult, best: TrialResult | None) -> None:
            bars.console.print(_line(trial, best), highlight=False, markup=False)
            shown = "trials" if best is None else f"best {best.value:.6g}"
            bars.update(task, completed=trial.number + 1, description=shown)

        yield observe


def _line(trial: TrialResult, best: TrialResult | None) -> str:
    if trial.value is None:
        return f"trial {trial.number:<4} failed: {trial.why}"
    mark = "  best so far" if best is not None and best.number == trial.number else ""
    given = " ".join(f"{key}={json.dumps(value)}" for key, value in trial.assignments.items())
    shown = given if len(given) <= _SHOWN_CHARS else given[: _SHOWN_CHARS - 3] + "..."
    return f"trial {trial.number:<4} {trial.value:<12.6g} {shown}{mark}"


def _tell(result: SearchResult, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run": result.run,
                "outcome": result.outcome.value,
                "out": str(result.out),
                "why": result.why,
                "best": result.best.record() if result.best else None,
                "trials": [trial.record() for trial in result.trials],
            }
        )
        return
    if result.why:
        click.echo(f"error: {result.why}", err=True)
    elif result.best is not None and result.outcome.value == "succeeded":
        for key, value in result.best.assignments.items():
            click.echo(f"{key} = {json.dumps(value)}")
        click.echo(f"best of {len(result.trials)} trials: {result.best.value:.6g}: {result.out}")
    else:
        click.echo("stopped; take it up again with the same command", err=True)


def _check_plot(path: Path) -> None:
    if path.suffix != ".png":
        raise click.UsageError(
            f"--plot {path}: a picture of a search is a PNG; give a path that ends in .png"
        )


def _draw(path: Path, result: SearchResult, options: SearchOptions) -> None:
    """The value of each trial, and the best so far."""
    import numpy as np

    from modelyard.core.files import write_whole
    from modelyard.reports.charts import Line, line_chart
    from modelyard.reports.heatmap import to_png

    if not any(trial.value is not None for trial in result.trials):
        return
    values = np.array([np.nan if trial.value is None else trial.value for trial in result.trials])
    gather = np.fmin if options.direction == "minimize" else np.fmax
    lines = [
        Line(name="best so far", y=gather.accumulate(values), width_pt=2.0),
        Line(name="trial", y=values, width_pt=0.8, dashed=True),
    ]
    numbers = np.array([float(trial.number) for trial in result.trials])
    write_whole(path, to_png(line_chart(numbers, lines, y_label=f"objective ({options.direction})")))
