"""`modelyard plan`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from modelyard.cli.main import REFUSED
from modelyard.cli.options import execution_options, jobs_option, json_option, print_json, yard_option
from modelyard.jobs.plan import plan_record
from modelyard.lifecycle.up import prepare_up
from modelyard.runs.execution import open_backend


@click.command(name="plan")
@click.argument("path", metavar="YARD.YAML", type=click.Path(path_type=Path))
@yard_option
@jobs_option
@json_option
def command(path: Path, yard_dir: Path, slots: int | None, as_json: bool) -> None:
    """Read a yard.yaml, check all of it, and show every command as it would be launched.

    What this machine lacks (a program, a file, disk) is told on standard error and makes the exit
    status 2; nothing is written or executed.
    """
    options = execution_options(slots)
    prepared = prepare_up(path, yard_dir.absolute() / "runs", options)
    backend = open_backend(options, Path(prepared.plan.run_dir) / "jobs")
    if as_json:
        requests = [{"step": step.name, "request": backend.render(step).body} for step in prepared.plan.steps]
        lacking = [str(fault) for fault in prepared.lacking]
        print_json(
            {
                "run": prepared.run,
                "plan": plan_record(prepared.plan),
                "requests": requests,
                "lacking": lacking,
            }
        )
    else:
        for step in prepared.plan.steps:
            waits = ", ".join((*step.needs, *step.after))
            click.secho(step.name, bold=True, nl=False)
            click.echo(f"  after {waits}" if waits else "")
            click.echo("    " + (step.argv[0] if step.shell else shlex.join(step.argv)))
        click.echo(f"{len(prepared.plan.steps)} steps; run {prepared.run}")
    for fault in prepared.lacking:
        click.echo(f"lacking here: {fault}", err=True)
    if prepared.lacking:
        sys.exit(REFUSED)
