"""`modelyard registry trust`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import actor_option
from modelyard.runs.yard import open_yard


@click.command(name="trust")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Whose key it is; the name of its file among the trusted ones.")
@actor_option
@yard_option
@json_option
def command(file: Path, name: str, actor: str, yard_dir: Path, as_json: bool) -> None:
    """Let the public key in FILE count in this yard, for approvals and for certificates.

    To let it count no more, remove its file from keys/trusted in the yard.
    """
    from modelyard.registry.keys import trust

    key_id = trust(open_yard(yard_dir, create=True), file, name=name, actor=actor)
    if as_json:
        print_json({"key_id": key_id, "name": name})
    else:
        click.echo(f"{name}: {key_id}")
