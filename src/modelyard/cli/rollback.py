"""`modelyard rollback`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import actor_option, opened, registry_option, served_line, without_secrets

if TYPE_CHECKING:
    from modelyard.registry.rollback import Drill


@click.command(name="rollback")
@click.argument("alias", type=click.Choice(("stage", "prod")))
@click.option("--to", default="", metavar="VERSION", help="NAME@VERSION. [default: the version before]")
@click.option(
    "--reason", default="", callback=without_secrets, help="Why; required, and kept in the history."
)
@actor_option
@click.option("--dry-run", is_flag=True, help="Tell what would be done and change nothing.")
@click.option("--drill", "drilled", is_flag=True, help="Rehearse it: prove that it would work, and do not.")
@yard_option
@registry_option
@json_option
def command(
    yard_dir: Path, url: str | None, as_json: bool, dry_run: bool, drilled: bool, **told: Any
) -> None:  # fmt: skip
    """Let an alias serve again what it served before, on the evidence of that time, which is verified anew.

    A version that was itself rolled back from does not come back so; certify and promote it anew. A drill
    also looks for the model in the content store and carries out the database's transaction, which it takes
    back.
    """
    from modelyard.lifecycle.governed.following import follow_all
    from modelyard.registry.rollback import Rollback, drill, rehearse, rollback

    if not drilled and not told["reason"]:
        raise click.UsageError("a rollback needs a reason: --reason TEXT")
    with opened(yard_dir, url) as (yard, registry):
        wanted = Rollback(**told)
        if drilled:
            found = drill(yard, registry, wanted)
            _tell_drill(found, as_json=as_json)
            sys.exit(1 if found.faults else 0)
        move = (rehearse if dry_run else rollback)(yard, registry, wanted)
        if not dry_run:
            follow_all(yard, registry)
    if as_json:
        print_json({"result": "would_move" if dry_run else "moved", "move": move.record()})
    else:
        click.echo(served_line(move, "would serve" if dry_run else "serves"))


def _tell_drill(found: Drill, *, as_json: bool) -> None:
    if as_json:
        told = {"faults": list(found.faults), "notes": list(found.notes)}
        print_json({"result": "fails" if found.faults else "works", "move": found.move.record(), **told})
        return
    for fault in found.faults:
        click.echo(fault, err=True)
    for note in found.notes:
        click.echo(f"not looked at: {note}")
    would = "a rollback would fail" if found.faults else "a rollback would work"
    click.echo(f"{would}: {served_line(found.move, 'would serve')}")
