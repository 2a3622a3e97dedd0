"""`modelyard status`."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.runs.index import Index
from modelyard.runs.view import RunView, find_run, view_run
from modelyard.runs.yard import Yard, open_yard

if TYPE_CHECKING:
    from rich.console import RenderableType

_REFRESH_S = 0.5


@click.command(name="status")
@click.argument("run", required=False)
@click.option("--follow", is_flag=True, help="Keep showing the run until it ends.")
@yard_option
@json_option
def command(run: str | None, follow: bool, yard_dir: Path, as_json: bool) -> None:
    """Where a RUN stands (a name or its beginning), or all runs of the yard."""
    yard = open_yard(yard_dir, create=False)
    if run is None and not follow:
        _list(yard, as_json=as_json)
        return
    row = find_run(yard, run)
    if follow and not as_json:
        _follow(yard, row.run)
        return
    view = view_run(yard, row)
    if as_json:
        print_json(view.record())
    else:
        click.echo(as_text(view))


def _list(yard: Yard, *, as_json: bool) -> None:
    rows = Index(yard.index_path, yard.journal).runs()
    views = [view_run(yard, row) for row in rows if Path(row.dir, "run.json").exists()]
    if as_json:
        print_json([{k: v for k, v in asdict(view).items() if k != "steps"} for view in views])
        return
    for view in views:
        click.echo(f"{view.run:<36} {view.state:<12} {view.done}/{view.total} steps  {view.source}")
    if not views:
        click.echo(f"{yard.root}: no run yet")


def _follow(yard: Yard, run: str) -> None:
    """Redraw until the run ends; plain lines where there is no terminal."""
    if not sys.stdout.isatty():
        _follow_plainly(yard, run)
        return
    from rich.live import Live

    with Live(refresh_per_second=4) as live:
        while True:
            view = view_run(yard, find_run(yard, run))
            live.update(_drawn(view))
            if view.state != "running":
                return
            time.sleep(_REFRESH_S)


def _follow_plainly(yard: Yard, run: str) -> None:
    before = ""
    while True:
        view = view_run(yard, find_run(yard, run))
        running = ", ".join(step.name for step in view.steps if step.status == "RUNNING")
        now = f"{view.done}/{view.total} steps{_left(view)}  {running}"
        if now != before:
            click.echo(now)
        before = now
        if view.state != "running":
            click.echo(f"{view.run}: {view.state}")
            return
        time.sleep(_REFRESH_S)


def as_text(view: RunView) -> str:
    """A run as lines of text."""
    lines = [f"{view.run}: {view.state}, {view.done}/{view.total} steps{_left(view)}", f"  {view.dir}"]
    for step in view.steps:
        seconds = "" if step.seconds is None else f"{step.seconds:8.1f} s"
        again = f"  attempt {step.attempts}" if step.attempts > 1 else ""
        lines.append(f"  {step.status:<10} {step.name:<32}{seconds:>10}{again}  {step.note}".rstrip())
    return "\n".join(lines)


def _left(view: RunView) -> str:
    return "" if view.left_s is None else f", about {view.left_s:.0f} s left"


def _drawn(view: RunView) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    return Group(ProgressBar(total=view.total, completed=view.done, width=60), Text(as_text(view)))
