"""`modelyard run report`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import yard_option


@click.command(name="report")
@click.argument("run")
@click.option("--run-dir", type=click.Path(path_type=Path), help="[default: governed/RUN in the yard]")
@yard_option
def command(run: str, run_dir: Path | None, yard_dir: Path) -> None:
    """Write the page of RUN, one HTML file without anything from elsewhere, and tell where it is."""
    from modelyard.lifecycle.governed.page import write_page
    from modelyard.lifecycle.governed.request import RunPlaces
    from modelyard.lifecycle.governed.view import governed_dir
    from modelyard.runs.yard import open_yard

    yard = open_yard(yard_dir, create=False)
    places = RunPlaces(run_dir=(run_dir or governed_dir(yard, run)).absolute())
    click.echo(str(write_page(yard, run, places)))
