"""`modelyard train`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import click

from modelyard.cli.options import (
    EXIT_STATUS,
    execution_flags,
    json_option,
    yard_option,
)
from modelyard.cli.progress import shown
from modelyard.runs.execution import ExecutionOptions
from modelyard.runs.yard import open_yard
from modelyard.training.train import PreparedTraining, prepare_training, record_plan, train


@click.command(name="train")
@click.option(
    "--config", "config", required=True, type=click.Path(path_type=Path), help="ELPA training file (JSON)."
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Where the run goes. [default: in the yard, by the file's name]",
)
@click.option("--manifest-out", type=click.Path(path_type=Path), help="A second place for the manifest.")
@click.option(
    "--execute", is_flag=True, help="Run the commands; without it they are only shown and recorded."
)
@execution_flags
@yard_option
@json_option
def command(
    config: Path,
    run_dir: Path | None,
    manifest_out: Path | None,
    yard_dir: Path,
    options: ExecutionOptions,
    **flags: bool,
) -> None:
    """Plan or run the training commands of an ELPA file, whatever the number of models.

    Without --execute nothing is trained: the commands are printed, and the manifest says `planned`.
    """
    run_dir = run_dir or yard_dir.absolute() / "runs" / config.stem
    prepared = prepare_training(config, run_dir, manifest_out, options)
    if not flags["execute"]:
        record_plan(prepared)
        _show(prepared, as_json=flags["as_json"])
        return
    yard = open_yard(yard_dir, create=True)
    with shown(len(prepared.plan.steps), quiet=flags["as_json"]) as observer:
        outcome, _ = train(yard, prepared, options, observers=[observer])
    if flags["as_json"]:
        click.echo(prepared.manifests[0].read_text(), nl=False)
    else:
        click.echo(f"{outcome.value}; manifest: {prepared.manifests[-1]}")
    sys.exit(EXIT_STATUS[outcome])


def _show(prepared: PreparedTraining, *, as_json: bool) -> None:
    for fault in prepared.lacking:
        click.echo(f"lacking here: {fault}", err=True)
    if as_json:
        click.echo(json.dumps(json.loads(prepared.manifests[-1].read_bytes()), indent=2))
        return
    for step in prepared.plan.steps:
        click.secho(step.member, bold=True)
        click.echo("    " + (step.argv[0] if step.shell else shlex.join(step.argv)))
    click.echo(
        f"{len(prepared.plan.steps)} planned, none run (that takes --execute); {prepared.manifests[-1]}"
    )
