"""`modelyard registry show`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option


@click.command(name="show")
@click.argument("wanted", metavar="NAME[@VERSION]")
@yard_option
@registry_option
@json_option
def command(wanted: str, yard_dir: Path, url: str | None, as_json: bool) -> None:
    """Tell all that is known of a version: its digest, who trained it, and when it served."""
    from modelyard.registry.versions import find_version

    with opened(yard_dir, url) as (_, registry):
        version = find_version(registry, wanted)
        moves = [each for each in registry.history() if each.to_digest == version.digest]
        aliases = [each.alias for each in registry.aliases().values() if each.digest == version.digest]
    if as_json:
        moved = [each.record() for each in moves]
        print_json({**version.record(), "serves_as": aliases, "moves": moved})
        return
    facts = {
        "digest": version.digest,
        "registered": version.created_at,
        "trained by": version.trained_by or "not known",
        "run": version.run_id or "none",
        "parent": version.parent_digest or "none",
        "in the content store": "yes" if version.stored else "no",
        "entry": json.dumps(version.entry, ensure_ascii=False, sort_keys=True),
        "serves as": ", ".join(aliases) or "nothing",
    }
    click.echo(version.label)
    for name, value in facts.items():
        click.echo(f"  {name:<21} {value}")
    for move in moves:
        click.echo(f"  {move.at[:19]} {move.kind} to {move.alias} by {move.actor}: {move.reason}")
