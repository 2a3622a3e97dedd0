"""`modelyard import csv`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.import_results.options import import_and_tell, import_options


@click.command(name="csv")
@import_options
def command(files: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Read CSV tables of model, example_id, score, and optionally prompt, cost_usd and more."""
    from modelyard.results.importers.table import read_csv_table  # pyarrow loads here, not before

    records = (record for path in files for record in read_csv_table(path))
    import_and_tell(records, output, as_json=as_json)
