"""`modelyard heads tree`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.heads.loading import counted, machine_options
from modelyard.cli.heads.options import plot_option, recorded_base_option
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.heads.choosing.choice import ChosenTree


class _Budget(click.ParamType[int | None]):
    """A number of nodes, or `auto`."""

    name = "NODES|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "auto":
            return None
        return click.IntRange(1, 63).convert(value, param, ctx)


@click.command(name="tree")
@click.argument("heads", type=click.Path(path_type=Path))
@recorded_base_option
@click.option(
    "--calibrate", "data", type=click.Path(path_type=Path), required=True, metavar="FILE.jsonl",
    help="Texts that they were not trained on, best written by BASE.",
)  # fmt: skip
@click.option(
    "--budget", type=_Budget(), default="auto", show_default=True, help="How many nodes; auto is what pays."
)
@click.option(
    "--clock", type=click.Choice(("wall", "cpu")), default="wall", show_default=True,
    help="Seconds that pass, or of the processor.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Tell what would be chosen; write nothing.")
@plot_option
@machine_options
@json_option
def command(heads: Path, data: Path, as_json: bool, dry_run: bool, plot: Path | None, **told: Any) -> None:
    """Choose the tree by which HEADS decode fastest on this machine, and write it into their folder.

    Which ranks are checked comes from what led to the next tokens of the texts; how many, from timed passes.
    It holds for this machine, --dtype and --threads. Where nothing pays, the tree is empty: decoding is
    plain.
    """
    from modelyard.heads.base import Base
    from modelyard.heads.choosing.choice import choose_tree, write_choice
    from modelyard.heads.config import base_of
    from modelyard.heads.decoding.decoder import Decoder
    from modelyard.heads.learning.data import read_corpus
    from modelyard.heads.model import load_heads

    base = Base.open(base_of(heads, told["base"]), dtype=told["dtype"], device=told["device"])
    corpus = read_corpus(data, base.tokenizer, ends=base.end_tokens)
    with counted("timing", quiet=as_json) as observe:
        choice = choose_tree(
            Decoder(base, load_heads(heads, base)), corpus, budget=told["budget"], clock=told["clock"],
            observe=observe,
        )  # fmt: skip
    if not dry_run:
        write_choice(heads, choice)
    if plot is not None:
        from modelyard.heads.pictures import choice_picture, write_picture

        write_picture(choice_picture(choice), plot)
    if as_json:
        print_json(choice.as_json())
        return
    _show(choice)


def _show(choice: ChosenTree) -> None:
    click.echo(f"{'nodes':>5}  {'tokens a pass':>13}  {'cost':>6}  {'speed-up':>8}")
    for each in choice.prospects:
        mark = "  chosen" if each == choice.prospect else ""
        click.echo(
            f"{each.nodes:>5}  {each.tokens_per_pass:>13.3f}  {each.cost:>6.3f}  {each.speedup:>8.3f}{mark}"
        )
    where = f"{choice.dtype}, {choice.threads} threads, {choice.clock} time"
    if choice.prospect is None:
        click.echo(f"no tree pays here ({where}): decoding is plain")
    else:
        click.echo(
            f"{choice.tree.size} nodes, {choice.tree.depth} heads deep: {choice.prospect.speedup:.2f} times"
            f" plain decoding is predicted ({where})"
        )
