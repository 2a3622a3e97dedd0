"""`modelyard up`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import (
    EXIT_STATUS,
    execution_flags,
    json_option,
    print_json,
    yard_option,
)
from modelyard.cli.plan import show
from modelyard.cli.progress import shown
from modelyard.lifecycle.up import UpResult, headline, prepare_up, up
from modelyard.runs.execution import ExecutionOptions, Outcome
from modelyard.runs.yard import open_yard

_BEST = "best_single_hindsight"
_MARK = " (best single in hindsight)"
#: Keys of the headline's rows and what stands over them; the leads follow.
_COLUMNS = {
    "name": "name",
    "group": "group",
    "mae": "mae",
    "mase": "mase",
    "mae_calm": "calm",
    "mae_mutant": "mutant",
}


@click.command(name="up")
@click.argument("path", metavar="YARD.YAML", type=click.Path(path_type=Path))
@yard_option
@execution_flags
@json_option
@click.option("--dry-run", is_flag=True, help="Show the commands and stop; the same as `modelyard plan`.")
@click.option("--fresh", is_flag=True, help="Begin a new run even though this file was run before.")
def command(path: Path, yard_dir: Path, options: ExecutionOptions, **flags: bool) -> None:
    """Train, predict, collect, build the ELPA policy, backtest it and write the report.

    Killed or stopped, it is taken up by the same command: jobs that still run are adopted, what has
    succeeded is not repeated.
    """
    prepared = prepare_up(path, yard_dir.absolute() / "runs", options, fresh=flags["fresh"])
    if flags["dry_run"]:
        show(prepared, options, as_json=flags["as_json"])
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


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The headline as aligned text: the policy first, then by error, the best single expert marked once."""
    experts = {row["name"] for row in rows if row["kind"] == "expert"}
    best = {row["name"] for row in rows if row["kind"] == _BEST}
    once = [row for row in rows if row["kind"] != _BEST or row["name"] not in experts]
    ordered = sorted(once, key=lambda row: row["kind"] != "policy")
    leads = [key for key in (rows[0] if rows else ()) if key.startswith("lead_")]
    partial = any(share is not None and share < 1.0 for share in (row.get("served_share") for row in once))
    columns = {
        **_COLUMNS,
        **({"served_share": "served"} if partial else {}),  # who is measured on a part of the rows
        **{key: key.replace("_", " ") for key in leads},
    }
    lines = [list(columns.values())]
    for row in ordered:
        mark = _MARK if row["name"] in best and row["kind"] in ("expert", _BEST) else ""
        lines.append([f"{row['name']}{mark}", *(_cell(row.get(key)) for key in list(columns)[1:])])
    return _aligned(lines, left=2)


def _aligned(lines: list[list[str]], *, left: int) -> str:
    """Lines of cells under a rule below the first; so many columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines = [lines[0], ["-" * width for width in widths], *lines[1:]]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
