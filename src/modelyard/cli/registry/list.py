"""`modelyard registry list`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option, short


@click.command(name="list")
@yard_option
@registry_option
@json_option
def command(yard_dir: Path, url: str | None, as_json: bool) -> None:
    """List the registered versions and what each alias serves."""
    with opened(yard_dir, url) as (_, registry):
        versions, aliases = registry.versions(), registry.aliases()
    if as_json:
        print_json(
            {
                "aliases": {name: alias.record() for name, alias in aliases.items()},
                "versions": [version.record() for version in versions],
            }
        )
        return
    width = max([len("version"), *(len(version.label) for version in versions)])
    click.echo(f"{'version':<{width}}  {'digest':<12}  {'registered':<19}  serves as")
    for version in versions:
        serves = [a.alias for a in aliases.values() if (a.name, a.version) == (version.name, version.version)]
        click.echo(
            f"{version.label:<{width}}  {short(version.digest):<12}  {version.created_at[:19]:<19}  "
            f"{', '.join(serves)}".rstrip()
        )
