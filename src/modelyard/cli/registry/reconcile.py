"""`modelyard registry reconcile`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option


@click.command(name="reconcile")
@yard_option
@registry_option
@json_option
def command(yard_dir: Path, url: str | None, as_json: bool) -> None:
    """Finish what a process that died left half done. Commands that change something do this first."""
    from modelyard.registry.ledger import alone, reconcile

    with opened(yard_dir, url) as (yard, registry), alone(yard):
        done = reconcile(yard, registry)
    if as_json:
        print_json(asdict(done))
    elif done.nothing:
        click.echo("nothing was half done")
    else:
        click.echo(
            f"{len(done.moved)} moves had been made, {len(done.abandoned)} had not; "
            f"{done.registered} versions and {done.approvals} approvals were entered"
        )
