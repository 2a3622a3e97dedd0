"""`modelyard merge stack`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.merge.options import carry_out, merge_options
from modelyard.cli.options import json_option

if TYPE_CHECKING:
    from modelyard.merging.engine import MergeOptions


@click.command(name="stack")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@merge_options
@json_option
def command(config: Path, out: Path, options: MergeOptions, as_json: bool) -> None:
    """Put layers of models one after another: CONFIG has layer_slices, embedding_source, lm_head_source.

    The format of bakllama.py, 2023.
    """
    from modelyard.merging.stack import read_stack

    carry_out([read_stack(config)], out, options, file=str(config), as_json=as_json)
