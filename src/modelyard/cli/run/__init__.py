"""`modelyard run`: a group of commands."""

from __future__ import annotations

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "start": "Train a candidate under governance and prove it, or take a run up where it was left.",
    "watch": "Tell where a governed run stands, who drives it, and what is next.",
    "list": "List the governed runs of a yard.",
    "report": "Write the page of a governed run: lineage, the paired outcome, the decision and its reasons.",
}


@click.group(name="run", cls=LazyGroup, package="modelyard.cli.run", known=_COMMANDS)
def command() -> None:
    """Governed runs: what was trained from what, alive or stuck, better or not, on what evidence."""
