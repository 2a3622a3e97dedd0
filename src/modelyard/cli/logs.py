"""`modelyard logs`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelyard.cli.options import yard_option
from modelyard.core.errors import RunNotFound
from modelyard.runs.view import find_run, view_run
from modelyard.runs.yard import open_yard


@click.command(name="logs")
@click.argument("run")
@click.argument("step")
@click.option("--stream", type=click.Choice(["both", "stdout", "stderr"]), default="both", show_default=True)
@click.option(
    "--tail", "lines", type=click.IntRange(min=1), help="Only the last so many lines of each stream."
)
@yard_option
def command(run: str, step: str, stream: str, lines: int | None, yard_dir: Path) -> None:
    """What the newest attempt at STEP of RUN wrote; a member's name means its training step."""
    yard = open_yard(yard_dir, create=False)
    view = view_run(yard, find_run(yard, run))
    steps = {item.name: item for item in view.steps}
    item = steps.get(step) or steps.get(f"train/{step}")
    if item is None:
        raise RunNotFound(f"{step!r} is not a step of {view.run}; steps: {', '.join(steps)}")
    if item.folder is None:
        raise RunNotFound(f"{item.name} has not been attempted yet; its logs appear when it runs")
    for name in ("stdout", "stderr"):
        path = Path(item.folder, f"{name}.log")
        if stream in ("both", name) and path.exists():
            data = path.read_bytes()
            sys.stdout.buffer.write(b"".join(data.splitlines(keepends=True)[-lines:]) if lines else data)
    sys.stdout.flush()
