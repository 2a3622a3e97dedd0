"""`modelyard registry approvals`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option, short


@click.command(name="approvals")
@click.argument("alias", type=click.Choice(("stage", "prod")), required=False)
@yard_option
@registry_option
@json_option
def command(alias: str | None, yard_dir: Path, url: str | None, as_json: bool) -> None:
    """List the approvals that were given, whether the alias moved on them or not."""
    with opened(yard_dir, url) as (_, registry):
        given = registry.approvals(alias)
    if as_json:
        print_json(given)
        return
    for record in given:
        click.echo(
            f"{record['alias']} {record['generation']}: {record['name']}@{record['version']} "
            f"({short(record['digest'])}) approved by {record['approver']} at {record['at'][:19]}, key "
            f"{short(record['signature']['key_id'])}"
        )
