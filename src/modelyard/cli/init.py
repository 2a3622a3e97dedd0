"""`modelyard init`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.lifecycle.up import copy_starter


@click.command(name="init")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
def command(folder: Path) -> None:
    """Write a starter yard into FOLDER (default: here): yard.yaml and the real forecasters that it runs.

    Files that are there already stay as they are.
    """
    written = copy_starter(folder)
    for path in written:
        click.echo(path)
    if not written:
        click.echo(f"{folder}: everything is here already")
    click.echo(f"next: modelyard plan {folder / 'yard.yaml'} ; modelyard up {folder / 'yard.yaml'}", err=True)
