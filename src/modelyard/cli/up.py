"""`modelyard up`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from modelyard.core.faults import duration_s
from modelyard.core.signals import caught_signals
from modelyard.lifecycle.notices import Notice
from modelyard.lifecycle.up import Prepared, UpResult, headline, prepare_up, up
from modelyard.lifecycle.watching.carrying import Round
from modelyard.lifecycle.watching.causes import Look
from modelyard.lifecycle.watching.rounds import foreseen, pause_unless, watch
from modelyard.lifecycle.watching.standing import Scene
from modelyard.runs.execution import ExecutionOptions, Outcome
from modelyard.runs.yard import open_yard

if TYPE_CHECKING:
    from modelyard.lifecycle.watching.drift import DriftLook

_BEST = "best_single_hindsight"
_DAY_S = 86400.0
_LEAST_EVERY_S = 1.0
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
@click.option("--watch", is_flag=True, help="Then look again and again, and train anew what has cause.")
@click.option("--every", help="With --watch: how long to wait between two looks, such as 10min.")
@click.option("--rounds", type=click.IntRange(min=1), help="With --watch: end after so many looks.")
def command(path: Path, yard_dir: Path, options: ExecutionOptions, **flags: Any) -> None:
    """Train, predict, collect, build the ELPA policy, backtest it and write the report.

    Killed or stopped, it is taken up by the same command: jobs that still run are adopted, what has
    succeeded is not repeated. With --watch it goes on until it is stopped: data that changed, a model
    older than its limit or one that drifts is trained anew, and the policy takes the new version over.
    """
    prepared = prepare_up(path, yard_dir.absolute() / "runs", options, fresh=flags["fresh"])
    if flags["watch"]:
        _watch(prepared, yard_dir, options, flags)
        return
    if flags["every"] or flags["rounds"]:
        raise click.UsageError("--every and --rounds are of --watch; add it")
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
    _print_untold(result.untold)
    sys.exit(EXIT_STATUS[result.outcome])


def _watch(prepared: Prepared, yard_dir: Path, options: ExecutionOptions, flags: Mapping[str, Any]) -> None:
    every_s = _every_s(flags["every"], prepared.declaration.watch.every_s)
    as_json = flags["as_json"]
    if flags["dry_run"]:
        there = (yard_dir / "yard.json").exists()
        yard = open_yard(yard_dir, create=False) if there else None
        print_look(
            foreseen(Scene(yard=yard, prepared=prepared, options=options)) if yard else None, as_json=as_json
        )
        return
    yard = open_yard(yard_dir, create=True)
    outcome = Outcome.SUCCEEDED
    with caught_signals() as caught, shown(len(prepared.plan.steps), quiet=as_json) as observer:
        scene = Scene(yard=yard, prepared=prepared, options=options, observers=[observer])
        for done in watch(scene, every_s=every_s, rounds=flags["rounds"], pause=pause_unless(caught)):
            _print_round(done, as_json=as_json)
            outcome = done.outcome
    sys.exit(EXIT_STATUS[outcome])


def _every_s(given: str | None, declared_s: float) -> float:
    if given is None:
        return declared_s
    seconds = duration_s(given)
    if seconds < _LEAST_EVERY_S:
        raise click.UsageError(f"--every {given}: is not a duration of 1s or more; write such as 10min")
    return seconds


def print_look(found: Look | None, *, as_json: bool) -> None:
    """What a round would do."""
    if as_json:
        print_json({"finished": found is not None, **({} if found is None else found.record())})
        return
    if found is None:
        click.echo("the run has not come to its end: every step that is left is run first")
        return
    for member in found.members:
        limit = "" if member.limit_s is None else f" of {member.limit_s / _DAY_S:.4g}"
        click.echo(f"{member.member}: {member.age_s / _DAY_S:.4g}{limit} days old{_drift(member.drift)}")
    for cause in found.causes:
        click.echo(f"would run {cause.step} again ({cause.kind}): {cause.why}")
    if not found.causes:
        click.echo("nothing to do")
    if found.problem:
        click.echo(f"drift could not be looked at: {found.problem}", err=True)


def _drift(found: DriftLook | None) -> str:
    if found is None:
        return ""
    if found.adjusted_p is None:
        return "; too little truth to tell whether it drifts"
    return f"; recent errors {found.ratio or 0.0:.2f} times those of validation, p = {found.adjusted_p:.2g}"


def _print_round(done: Round, *, as_json: bool) -> None:
    """One round: a line of JSON, or what happened in words."""
    if as_json:
        click.echo(json.dumps(_round_record(done), ensure_ascii=False, default=str))
    else:
        if done.result is not None:
            _print(done.result)
        for cause in done.causes:
            click.echo(f"{cause.step} again ({cause.kind}): {cause.why}")
        for verb, names in (("trained anew", done.retrained), ("forecast anew", done.refreshed)):
            if names:
                click.echo(f"{verb}: {', '.join(names)}")
        for name, why in done.failed.items():
            click.echo(f"{name}: the old version stands: {why}", err=True)
        if done.result is None and not done.causes and done.outcome is not Outcome.CANCELLED:
            click.echo(f"{done.at[:19]} nothing to do")
        if done.problem:
            click.echo(f"drift could not be looked at: {done.problem}", err=True)
    _print_untold(done.untold)


def _round_record(done: Round) -> dict[str, Any]:
    return {
        "at": done.at,
        "outcome": done.outcome.value,
        "causes": [asdict(cause) for cause in done.causes],
        "retrained": list(done.retrained),
        "refreshed": list(done.refreshed),
        "failed": dict(done.failed),
        "problem": done.problem,
        "run": None if done.result is None else _record(done.result),
    }


def _print_untold(untold: Sequence[tuple[Notice, str]]) -> None:
    for notice, why in untold:
        click.echo(f"notify: {notice.state} of {notice.step} was not told: {why}", err=True)


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
