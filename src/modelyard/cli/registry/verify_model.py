"""`modelyard registry verify-model`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option


@click.command(name="verify-model")
@click.argument("wanted", metavar="NAME[@VERSION]")
@click.option(
    "--trusted", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
    help="The public keys (*.pem) that may sign.  [default: YARD/keys/trusted]",
)  # fmt: skip
@yard_option
@registry_option
@json_option
def command(wanted: str, trusted: Path | None, yard_dir: Path, url: str | None, as_json: bool) -> None:
    """Hold the files of a version's checkpoint against its signatures.

    Status 1 where no trusted key signed it, or a trusted key's signature does not hold. Signatures of others
    are told and count for nothing.
    """
    from modelyard.core.signing import TRUSTED, trusted_keys
    from modelyard.registry.model_signatures import verify_model
    from modelyard.registry.versions import find_version

    with opened(yard_dir, url) as (yard, registry):
        version = find_version(registry, wanted)
        keys = trusted_keys(trusted or yard.keys_dir / TRUSTED)
        found = verify_model(yard, version, keys)
    signers = [each.key_id for each in found if not each.fault]
    faults = [each.fault for each in found if each.fault and each.key_id]
    others = [each.fault for each in found if each.fault and not each.key_id]
    if not signers and not faults:
        faults = [f"{version.label}: no trusted key signed it; run `modelyard registry sign {version.label}`"]
    if as_json:
        told = {"version": version.label, "digest": version.digest, "signed_by": signers}
        print_json({**told, "ignored": others, "faults": faults, "holds": not faults})
    else:
        for fault in [*others, *faults]:
            click.echo(fault, err=True)
        click.echo(f"{version.label}: {version.digest}")
        click.echo(f"signed by: {', '.join(signers) or 'nobody'}\n{'DOES NOT HOLD' if faults else 'HOLDS'}")
    sys.exit(1 if faults else 0)
