"""`modelyard plan`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from modelyard.cli.main import REFUSED
from modelyard.cli.options import (
    backend_option,
    execution_options,
    jobs_option,
    json_option,
    print_json,
    yard_option,
)
from modelyard.jobs.plan import plan_record
from modelyard.lifecycle.up import Prepared, prepare_up
from modelyard.runs.execution import ExecutionOptions, open_backend


@click.command(name="plan")
@click.argument("path", metavar="YARD.YAML", type=click.Path(path_type=Path))
@yard_option
@jobs_option
@backend_option
@json_option
def command(path: Path, yard_dir: Path, slots: int | None, backend: str, as_json: bool) -> None:
    """Read a yard.yaml, check all of it, and show every command as it would be launched.

    What this machine lacks (a program, a file, disk) is told on standard error and makes the exit
    status 2; nothing is written or executed.
    """
    options = execution_options(slots, backend=backend)
    show(prepare_up(path, yard_dir.absolute() / "runs", options), options, as_json=as_json)


def show(prepared: Prepared, options: ExecutionOptions, *, as_json: bool) -> None:
    """Print a prepared yard and what this machine lacks for it; then the exit status is 2."""
    if as_json:
        print_json(_record(prepared, options))
    else:
        _print(prepared)
    for fault in prepared.lacking:
        click.echo(f"lacking here: {fault}", err=True)
    if prepared.lacking:
        sys.exit(REFUSED)


def _record(prepared: Prepared, options: ExecutionOptions) -> dict[str, Any]:
    opened = open_backend(options, Path(prepared.plan.run_dir) / "jobs")
    return {
        "run": prepared.run,
        "plan": plan_record(prepared.plan),
        "requests": [
            {"step": step.name, "request": opened.render(step).body} for step in prepared.plan.steps
        ],
        "lacking": [str(fault) for fault in prepared.lacking],
    }


def _print(prepared: Prepared) -> None:
    for step in prepared.plan.steps:
        waits = ", ".join((*step.needs, *step.after))
        click.secho(step.name, bold=True, nl=False)
        click.echo(f"  after {waits}" if waits else "")
        click.echo("    " + (step.argv[0] if step.shell else shlex.join(step.argv)))
    click.echo(f"{len(prepared.plan.steps)} steps; run {prepared.run}")
