"""`modelyard promote`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import (
    WAITING,
    actor_option,
    opened,
    registry_option,
    served_line,
    without_secrets,
)

if TYPE_CHECKING:
    from modelyard.registry.promotion import Promoted

_PATH = click.Path(path_type=Path)
_SAID = {
    "moved": "serves",
    "already": "already serves",
    "waiting": "does not yet serve",
    "would_move": "would serve",
    "would_wait": "would not yet serve",
}


@click.command(name="promote")
@click.argument("version", metavar="NAME[@VERSION]")
@click.option(
    "--to", "alias", type=click.Choice(("stage", "prod")), required=True, help="What is to serve it."
)
@click.option("--evidence", type=_PATH, required=True, metavar="REPORT", help="The certificate's report.")
@click.option("--approve", is_flag=True, help="Approve it too, with the key of --key.")
@click.option("--key", type=_PATH, metavar="FILE", help="The private key of who approves.")
@actor_option
@click.option(
    "--reason", default="", callback=without_secrets,
    help="Why; it is kept in the history. [default: the certificate passed]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@yard_option
@registry_option
@json_option
def command(
    yard_dir: Path, url: str | None, as_json: bool, dry_run: bool, approve: bool, **told: Any
) -> None:  # fmt: skip
    """Let stage or prod serve a version, on the evidence of a certificate.

    The certificate is recomputed; it must be signed by a trusted key, have passed, and compare this version
    with what the alias serves now. Where the yard's policy wants approvals, each approver calls this with
    --approve and a key of their own; the last one moves the alias. The status is 6 while approvals are
    missing.
    """
    from modelyard.core.signing import open_signer
    from modelyard.lifecycle.governed.following import follow_all
    from modelyard.registry.keys import key_names
    from modelyard.registry.promotion import Promotion, promote, rehearse

    key = told.pop("key")
    if approve != (key is not None):
        raise click.UsageError("--approve and --key FILE belong together")
    signer = open_signer(key, create=False) if key else None
    with opened(yard_dir, url) as (yard, registry):
        promotion = Promotion(**told, signer=signer)
        promoted = (rehearse if dry_run else promote)(yard, registry, promotion)
        names = key_names(yard)
        if not dry_run:
            follow_all(yard, registry)
    if as_json:
        print_json(_record(promoted))
    else:
        _show(promoted, names)
    sys.exit(0 if promoted.enough else WAITING)


def _record(promoted: Promoted) -> dict[str, Any]:
    counted = promoted.tally
    return {
        "result": promoted.result,
        "move": promoted.move.record(),
        "approvals": {
            "required": promoted.move.required,
            "counted": [each["signature"]["key_id"] for each in counted.counted],
            "missing": counted.missing,
            "refused": list(counted.refused),
            "may_approve": list(counted.open_seats),
        },
    }


def _show(promoted: Promoted, names: Mapping[str, str]) -> None:
    move, counted = promoted.move, promoted.tally
    click.echo(served_line(move, _SAID[promoted.result]))
    if promoted.enough:
        return
    given = ", ".join(str(each.get("approver")) for each in counted.counted) or "nobody"
    click.echo(f"{len(counted.counted)} of {move.required} approvals: {given}", err=True)
    for refused in counted.refused:
        click.echo(f"not counted: {refused}", err=True)
    if counted.certifier_alone:
        click.echo("who signed the certificate cannot approve alone", err=True)
    able = ", ".join(sorted(names.get(each, each) for each in counted.open_seats))
    nobody = "no key that is trusted yet; see `modelyard registry key` and `modelyard registry trust`"
    click.echo(f"{counted.missing} missing; may approve: {able or nobody}", err=True)
