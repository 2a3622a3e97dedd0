"""`modelyard run watch`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.run.showing import told_step

if TYPE_CHECKING:
    from modelyard.lifecycle.governed.view import GovernedView
    from modelyard.runs.yard import Yard

_REFRESH_S = 0.5


@click.command(name="watch")
@click.argument("run")
@click.option("--run-dir", type=click.Path(path_type=Path), help="[default: governed/RUN in the yard]")
@click.option("--follow/--once", default=None, help="[default: follow on a terminal]")
@yard_option
@json_option
def command(run: str, run_dir: Path | None, follow: bool | None, yard_dir: Path, as_json: bool) -> None:
    """Tell where RUN stands: its phase, whether it is running, stalled or lost, and what is next.

    The driver's own clock is not believed: on its machine the kernel tells, from elsewhere only a lease that
    is seen to be renewed.
    """
    import sys

    from modelyard.lifecycle.governed.view import governed_dir, view_governed
    from modelyard.runs.yard import open_yard

    yard = open_yard(yard_dir, create=False)
    place = run_dir or governed_dir(yard, run)
    if follow is None:
        follow = sys.stdout.isatty() and not as_json
    if follow:
        _follow(yard, run, place)
        return
    view = view_governed(yard, run, place)
    if as_json:
        print_json(view.record())
    else:
        click.echo(_text(view))


def _text(view: GovernedView) -> str:
    progress: dict[str, Any] = dict(view.progress)
    lines = [f"{view.run}: {view.state} (iteration {view.iteration}), {view.life.value}: {view.why}"]
    if progress:
        lines.append(f"  {progress['overall_pct']:.1f} %  {told_step(progress)}")
    lines.append(f"  next: {view.next_action}")
    for move in view.moves[-5:]:
        told = f": {move.reason}" if move.reason else ""
        lines.append(f"  {move.time[:19]}  {move.source or '-'} -> {move.target} by {move.actor}{told}")
    return "\n".join(lines)


def _follow(yard: Yard, run: str, place: Path) -> None:
    """Redraw until nobody drives the run; leases of other machines are judged by two readings."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from modelyard.lifecycle.governed.view import view_governed
    from modelyard.runs.directory import LEASE_S, read_lease
    from modelyard.runs.liveness import Life

    earlier, read_at = None, time.monotonic()
    first = read_lease(place)
    with Live(console=Console(), refresh_per_second=4) as live:
        while True:
            view = view_governed(yard, run, place, earlier=earlier)
            live.update(Text(_text(view)))
            if view.life in (Life.IDLE, Life.LOST):
                return
            time.sleep(_REFRESH_S)
            if time.monotonic() - read_at > LEASE_S:
                earlier, first, read_at = first, read_lease(place), time.monotonic()
