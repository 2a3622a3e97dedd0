"""`modelyard merge legacy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.merge.options import carry_out, merge_options
from modelyard.cli.options import json_option

if TYPE_CHECKING:
    from modelyard.merging.engine import MergeOptions

#: Options of the program that have nothing to do here.
_WITHOUT_EFFECT = ("cache_dir", "merged_cache_dir", "cuda", "int8_mask")


@click.command(name="legacy")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--merge", multiple=True, required=True, metavar="MODEL", help="A model to merge: PATH or PATH+LORA."
)
@click.option(
    "--weight", multiple=True, type=float, help="One for all models, or one for each --merge; t of slerp."
)
@click.option(
    "--density", multiple=True, type=float, help="ties: the share of differences kept. [default: 0.33]"
)
@click.option(
    "--layer-gradient", metavar="JSON", help='Knots over the layers, such as "[0, 0.3, 0.7, 0, 0.1, 1.0]".'
)
@click.option(
    "--method",
    type=click.Choice(("ties", "linear", "slerp")),
    default="ties",
    show_default=True,
    help="The method.",
)
@click.option(
    "--base-model", metavar="MODEL", help="Of ties and slerp. [default for slerp: the first --merge]"
)
@click.option(
    "--normalize/--no-normalize", default=True, show_default=True, help="Divide by the sum of weights."
)
@click.option(
    "--bf16/--no-bf16", default=True, show_default=True, help="Store in bfloat16 (embeddings in float32)."
)
@click.option("--naive-count", is_flag=True, help="ties: elect signs by number of models, not by weight.")
@click.option(
    "--head-gradient", type=click.Choice(("base", "end")), default="base", show_default=True,
    help="slerp with a gradient: keep the base's lm_head, as the program did, or take the last knot.",
)  # fmt: skip
@click.option(
    "--copy-tokenizer/--no-copy-tokenizer", default=True, show_default=True, help="Accepted: it is copied."
)
@click.option("--cache-dir", help="Accepted, without effect.")
@click.option("--merged-cache-dir", help="Accepted, without effect.")
@click.option("--cuda", is_flag=True, help="Accepted, without effect.")
@click.option("--int8-mask", is_flag=True, help="Accepted, without effect.")
@merge_options
@json_option
def command(out: Path, options: MergeOptions, as_json: bool, head_gradient: str, **told: Any) -> None:
    """Merge with the command line of 2023 (main.py): same options, same checkpoint."""
    from modelyard.artifacts.checkpoints import open_checkpoint
    from modelyard.merging.architecture import layer_counts
    from modelyard.merging.legacy import HeadGradient, LegacyCommand, legacy_recipe, model_ref

    for name in (*_WITHOUT_EFFECT, "copy_tokenizer"):
        told.pop(name)
    first = open_checkpoint(Path(model_ref(told["base_model"] or told["merge"][0]).path))
    layers = max(layer_counts(first.tensors).values(), default=0)
    recipe = legacy_recipe(LegacyCommand(head_gradient=HeadGradient(head_gradient), **told), layers=layers)
    carry_out([recipe], out, options, file="merge legacy", as_json=as_json)
