"""Showing a run while it goes on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from modelyard.jobs.progress import StepProgress, StepStatus

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

_COLOURS = {
    StepStatus.SUCCEEDED: "green",
    StepStatus.FAILED: "red",
    StepStatus.CANCELLED: "yellow",
    StepStatus.SKIPPED: "yellow",
    StepStatus.RUNNING: "cyan",
}
_WORDS = {StepStatus.SUCCEEDED: "ok", StepStatus.RUNNING: "running"}


@contextmanager
def shown(total: int, *, quiet: bool = False) -> Iterator[Callable[[StepProgress], None]]:
    """An observer that shows every change of a run with so many steps, on standard error."""
    if quiet:
        yield lambda _item: None
    elif sys.stderr.isatty():
        with _bars(total) as observer:
            yield observer
    else:
        yield _lines()


def _lines() -> Callable[[StepProgress], None]:
    known: dict[str, tuple[StepStatus, int]] = {}

    def observe(item: StepProgress) -> None:
        standing = (item.status, len(item.jobs))
        if known.get(item.step.name) == standing or item.status is StepStatus.WAITING:
            return
        first = item.step.name not in known and item.status is StepStatus.SUCCEEDED
        known[item.step.name] = standing
        click.echo(line(item) + (" (before)" if first else ""), err=True)

    return observe


@contextmanager
def _bars(total: int) -> Iterator[Callable[[StepProgress], None]]:
    from rich.progress import TimeElapsedColumn

    ended: set[str] = set()
    running: dict[str, None] = {}
    with counting_bars(TimeElapsedColumn()) as bars:
        task = bars.add_task("steps", total=total)

        def observe(item: StepProgress) -> None:
            name = item.step.name
            running.pop(name, None)
            if item.status is StepStatus.RUNNING:
                running[name] = None
            if item.status.ended and name not in ended:
                ended.add(name)
                bars.console.print(line(item), style=_COLOURS[item.status], highlight=False)
            bars.update(task, completed=len(ended), description=", ".join(running)[:60] or "steps")

        yield observe


def counting_bars(*between: ProgressColumn) -> Progress:
    """Bars on standard error that are gone at the end: what, how many of all, and the time that is left.

    Args:
        between: More columns, before the time that is left.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *between, TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip


def line(item: StepProgress) -> str:
    """One step as one line: its name, how it stands, how long it took, and why."""
    word = _WORDS.get(item.status, item.status.value.lower())
    attempt = f" (attempt {len(item.jobs)})" if len(item.jobs) > 1 else ""
    return f"{item.step.name:<28} {word}{_seconds(item)}{attempt}" + (f"  {item.note}" if item.note else "")


def _seconds(item: StepProgress) -> str:
    job = item.last
    if job is None or not job.state.final or job.report.started_at is None or job.report.finished_at is None:
        return ""
    begun, ended = (datetime.fromisoformat(t) for t in (job.report.started_at, job.report.finished_at))
    return f"  {(ended - begun).total_seconds():.1f} s"
