"""`modelyard import`: logs of other tools into the results table."""

from __future__ import annotations

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "lm-eval": "Sample logs of lm-evaluation-harness.",
    "inspect": "Logs of inspect_ai (.eval or .json).",
    "csv": "A table of model, example_id, score.",
}


@click.group(name="import", cls=LazyGroup, package="modelyard.cli.import_results", known=_COMMANDS)
def command() -> None:
    """Read what other tools measured into results.parquet and prompts.parquet."""
