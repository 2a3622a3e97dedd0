"""`modelyard up`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import (
    EXIT_STATUS,
    continue_option,
    execution_options,
    jobs_option,
    json_option,
    print_json,
    yard_option,
)
from modelyard.cli.progress import shown
from modelyard.lifecycle.up import UpResult, headline, prepare_up, up
from modelyard.runs.execution import Outcome
from modelyard.runs.yard import open_yard


@click.command(name="up")
@click.argument("path", metavar="YARD.YAML", type=click.Path(path_type=Path))
@yard_option
@jobs_option
@continue_option
@json_option
@click.option("--dry-run", is_flag=True, help="Show the commands and stop; the same as `modelyard plan`.")
@click.option("--fresh", is_flag=True, help="Begin a new run even though this file was run before.")
def command(path: Path, yard_dir: Path, slots: int | None, continue_on_error: bool, **flags: bool) -> None:
    """Train, predict, collect, build the ELPA policy, backtest it and write the report.

    Killed or stopped, it is taken up by the same command: jobs that still run are adopted, what has
    succeeded is not repeated.
    """
    options = execution_options(slots, continue_on_error=continue_on_error)
    prepared = prepare_up(path, yard_dir.absolute() / "runs", options, fresh=flags["fresh"])
    if flags["dry_run"]:
        for step in prepared.plan.steps:
            click.echo(step.argv[0] if step.shell else shlex.join(step.argv))
        return
    yard = open_yard(yard_dir, create=True)
    with shown(len(prepared.plan.steps), quiet=flags["as_json"]) as observer:
        result = up(yard, prepared, options, observers=[observer])
    if flags["as_json"]:
        print_json(_record(result))
    else:
        _print(result)
    sys.exit(EXIT_STATUS[result.outcome])


def _record(result: UpResult) -> dict[str, Any]:
    return {
        "run": result.directory.record.run,
        "outcome": result.outcome.value,
        "run_dir": str(result.directory.path),
        "policy": str(result.places.policy),
        "report": str(result.places.report),
        "steps": {
            item.step.name: {"status": item.status.value, "note": item.note} for item in result.progress
        },
        "table": headline(result.places),
    }


def _print(result: UpResult) -> None:
    rows = headline(result.places) if result.outcome in (Outcome.SUCCEEDED, Outcome.PARTIAL) else []
    if rows:
        click.echo(as_table(rows))
    failed = [item for item in result.progress if item.note]
    for item in failed:
        click.echo(f"{item.step.name}: {item.note}", err=True)
    click.echo(f"run {result.directory.record.run}: {result.outcome.value}")
    if result.places.report.exists():
        click.echo(f"report: {result.places.report}")
    if result.outcome is Outcome.CANCELLED:
        click.echo("take it up again with the same command", err=True)


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned text; numbers to the right."""
    heads = list(rows[0])
    cells = [[_cell(row.get(head)) for head in heads] for row in rows]
    widths = [max(len(head), *(len(line[i]) for line in cells)) for i, head in enumerate(heads)]
    left = {i for i, head in enumerate(heads) if isinstance(rows[0].get(head), str)}

    def aligned(line: list[str]) -> str:
        return "  ".join(
            t.ljust(w) if i in left else t.rjust(w) for i, (t, w) in enumerate(zip(line, widths, strict=True))
        )

    return "\n".join([aligned(heads), "  ".join("-" * w for w in widths), *(aligned(line) for line in cells)])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
