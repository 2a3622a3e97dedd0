"""`modelyard registry history`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option, short

_ALIASES = ("stage", "prod")


@click.command(name="history")
@click.argument("alias", type=click.Choice(_ALIASES), required=False)
@yard_option
@registry_option
@json_option
def command(alias: str | None, yard_dir: Path, url: str | None, as_json: bool) -> None:
    """Tell how an alias moved, or both: who, when, why and on what evidence. The newest is last."""
    with opened(yard_dir, url) as (_, registry):
        moves = registry.history(alias)
    if as_json:
        print_json([move.record() for move in moves])
        return
    for move in moves:
        approvers = ", ".join(str(each.get("approver")) for each in move.approvals)
        click.echo(
            f"{move.alias} {move.generation}: {move.kind} to {move.label} ({short(move.from_digest)} -> "
            f"{short(move.to_digest)})\n"
            f"    {move.at[:19]} by {move.actor}{f', approved by {approvers}' if approvers else ''}\n"
            f"    why: {move.reason}\n"
            f"    evidence: {move.evidence}"
        )
