"""`modelyard heads export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.heads.options import Places, place_options, recorded_base_option
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.heads.formats.converting import Conversion

#: The keys of `modelyard.heads.formats.LAYOUTS`, which needs torch.
LAYOUT_NAMES = ("medusa", "medusa2", "vllm", "tgi", "economize")


@click.command(name="export")
@click.argument("heads", type=click.Path(path_type=Path))
@click.option("--format", "layout", type=click.Choice(LAYOUT_NAMES), required=True, help="Who is to read it.")
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Read it back and compare logits."
)
@place_options
@recorded_base_option
@json_option
def command(heads: Path, base: Path | None, layout: str, verify: bool, places: Places, as_json: bool) -> None:
    """Write HEADS in a layout that other programs read.

    medusa: FasterDecoding's own, with a projection for each head. medusa2: its later one, where heads share
    the base's. vllm: vLLM up to 0.32. tgi: text-generation-inference. economize: economize 0.3. What a layout
    cannot hold is refused, and what is otherwise than one may think is said.
    """
    from modelyard.heads.config import base_of
    from modelyard.heads.formats import LAYOUTS
    from modelyard.heads.formats.converting import export_heads

    done = export_heads(
        heads, base_of(heads, base), places.output, layout=LAYOUTS[layout],
        base_name=places.base_name, verify=verify,
    )  # fmt: skip
    if as_json:
        print_json(done.as_json())
        return
    show(done)
    compared = done.comparison
    if compared is None:
        click.echo("not verified")
    else:
        click.echo(
            f"verified    read back: logits of {compared.tokens:,} tokens at {compared.states} hidden states"
            " are the same numbers"
        )


def show(done: Conversion) -> None:
    """What was found or written."""
    heads = done.heads
    whose = "the base's projection" if heads.projection == "shared" else "projections of their own"
    facts = {
        "layout": done.layout,
        "heads": f"{heads.heads} of {heads.layers} residual block{'s' if heads.layers > 1 else ''}, {whose}",
        "tokens": f"{heads.drafted:,} of {heads.vocab_size:,} can be drafted",
        "type": done.dtype,
        "base": f"{heads.base_name} ({heads.base[:19]})",
        "written to": done.folder,
    }
    for name, value in facts.items():
        click.echo(f"{name:<11} {value}")
    for note in done.notes:
        click.echo(f"note        {note}")
