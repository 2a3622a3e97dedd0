"""`modelyard registry verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option


@click.command(name="verify")
@yard_option
@registry_option
@json_option
def command(yard_dir: Path, url: str | None, as_json: bool) -> None:
    """Hold every version, alias and move against the journal and the certificates, which are recomputed.

    The status is 1 when something is wrong.
    """
    from modelyard.registry.audit import audit

    with opened(yard_dir, url) as (yard, registry):
        found = audit(yard, registry)
    if as_json:
        print_json(asdict(found))
    else:
        for fault in found.faults:
            click.echo(fault, err=True)
        for move in found.open:
            click.echo(f"half done: {move}; run `modelyard registry reconcile`", err=True)
        elsewhere = f", {found.elsewhere} of them made in other yards" if found.elsewhere else ""
        judgement = "NOT SOUND" if found.faults else "SOUND"
        click.echo(f"{found.versions} versions, {found.moves} moves{elsewhere}: {judgement}")
    sys.exit(1 if found.faults else 0)
