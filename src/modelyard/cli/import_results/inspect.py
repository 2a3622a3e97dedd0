"""`modelyard import inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.import_results.options import import_and_tell, import_options, model_option


@click.command(name="inspect")
@import_options
@model_option
def command(files: tuple[Path, ...], output: Path, as_json: bool, model: str | None) -> None:
    """Read logs of inspect_ai, .eval or .json."""
    from modelyard.results.importers.inspect_log import read_inspect  # pyarrow loads here, not before

    records = (record for path in files for record in read_inspect(path, model))
    import_and_tell(records, output, as_json=as_json)
