"""How governed runs are shown, and the exit status of what became of one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from modelyard.cli.options import print_json

#: Exit statuses by the state in which a run was left; the others are 0.
_STATUS = {"fail": 4, "inconclusive": 5, "failed": 1, "lost": 1, "submit_failed": 1, "route_rejected": 2}
#: A run that was stopped while its training or its evaluation went on.
_STOPPED = frozenset({"submit_intent", "submitted", "running", "paired_eval"})
_INTERRUPTED = 130


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Told of each line of progress: a bar on a terminal, plain lines of what is new elsewhere."""
    if quiet:
        yield lambda _line: None
    elif sys.stderr.isatty():
        with _bar() as told:
            yield told
    else:
        said: list[str] = []

        def tell(line: Mapping[str, Any]) -> None:
            if said[-1:] != [line["step"]]:
                said.append(line["step"])
                click.echo(progress_line(line), err=True)

        yield tell


@contextmanager
def _bar() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("requested", total=100.0)
        yield lambda line: bar.update(task, completed=line["overall_pct"], description=told_step(line))


def told_step(line: Mapping[str, Any]) -> str:
    """The phase, the state in it, and how far that is."""
    share = "" if line.get("step_pct") is None else f" {line['step_pct']:.0f} %"
    return f"{line['phase']}: {line['step']}{share}"


def progress_line(line: Mapping[str, Any]) -> str:
    """One line of progress for people."""
    return f"{line['run_id']}  iteration {line['iteration']}  {line['overall_pct']:5.1f} %  {told_step(line)}"


def end(result: Mapping[str, Any], *, as_json: bool) -> int:
    """Print what became of a run; the exit status."""
    if as_json:
        print_json(dict(result))
    else:
        click.echo(f"{result['run_id']}: {result['status']} (iteration {result['iteration']})")
        for reason in result["rationale"]:
            if reason:
                click.echo(f"  {reason}")
        click.echo(f"  recommended: {result['promotion_recommendation']}; next: {result['next_action']}")
        click.echo(f"  {result['run_dir']}")
    if result["status"] in _STOPPED and not result["dry_run"]:
        return _INTERRUPTED
    return _STATUS.get(result["status"], 0)
