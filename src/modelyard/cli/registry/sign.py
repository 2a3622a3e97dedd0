"""`modelyard registry sign`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import actor_option, opened, registry_option


@click.command(name="sign")
@click.argument("wanted", metavar="NAME[@VERSION]")
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE",
    help="The private key that signs. [default: the yard's own]",
)  # fmt: skip
@actor_option
@yard_option
@registry_option
@json_option
def command(
    wanted: str, key: Path | None, actor: str, yard_dir: Path, url: str | None, as_json: bool
) -> None:
    """Sign the files of a version's checkpoint, which is in the content store.

    Others check the signature with `registry verify-model`, or with the command model_signing.
    """
    from modelyard.core.signing import OWN_KEY, open_signer
    from modelyard.registry.model_signatures import sign_model
    from modelyard.registry.versions import find_version

    with opened(yard_dir, url) as (yard, registry):
        version = find_version(registry, wanted)
        own = yard.keys_dir / OWN_KEY
        if key is None:
            open_signer(own, create=True)
        signed = sign_model(yard, version, key or own, actor=actor)
    if as_json:
        told = {"version": version.label, "digest": version.digest}
        print_json({**told, "key_id": signed.key_id, "signature": str(signed.path)})
    else:
        click.echo(f"{version.label}: signed by {signed.key_id}\n{signed.path}")
