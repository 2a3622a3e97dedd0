"""`modelyard heads import`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.heads.export import show
from modelyard.cli.heads.options import Places, place_options
from modelyard.cli.options import json_option, print_json


@click.command(name="import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--base", type=click.Path(path_type=Path), required=True, help="The model that the heads are of."
)
@place_options
@json_option
def command(folder: Path, base: Path, places: Places, as_json: bool) -> None:
    """Read heads that another program wrote in FOLDER; its layout is found by looking.

    FasterDecoding/Medusa of both generations (a .pt file is read without executing it), vLLM up to 0.32,
    text-generation-inference and economize. The tensors decide how many heads there are, whatever the config
    states. No layout tells its base by content: measure by `heads check` whether BASE is the right one.
    """
    from modelyard.heads.formats.converting import import_heads

    done = import_heads(folder, base, places.output, base_name=places.base_name)
    if as_json:
        print_json(done.as_json())
        return
    show(done)
