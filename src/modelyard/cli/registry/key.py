"""`modelyard registry key`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json


@click.command(name="key")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def command(file: Path, as_json: bool) -> None:
    """Make a private key in FILE, or take the one that is there, and write its public key to FILE.pub.pem.

    The private key stays with its owner; the public one is given to whoever looks after the yard.
    """
    from modelyard.core.files import write_whole
    from modelyard.core.signing import open_signer

    signer = open_signer(file, create=True)
    public = file.with_name(file.name + ".pub.pem")
    write_whole(public, signer.public_pem)
    if as_json:
        print_json({"key_id": signer.key_id, "private": str(file), "public": str(public)})
    else:
        click.echo(f"{signer.key_id}\nprivate: {file}\npublic:  {public}")
