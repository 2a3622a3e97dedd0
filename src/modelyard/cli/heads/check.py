"""`modelyard heads check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.heads.loading import machine_options
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.heads.measuring.checking import Checked
    from modelyard.heads.measuring.intervals import Estimate


@click.command(name="check")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("heads", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Texts not trained on, JSON lines. [default: what training held out, in HEADS]",
)  # fmt: skip
@click.option(
    "--own-base", type=click.Path(path_type=Path), help="The base they were trained on, to compare."
)
@click.option(
    "--answers", type=click.IntRange(min=2), metavar="TOKENS",
    help="Let each base write its own answers to the prompts, greedily, and measure on those.",
)  # fmt: skip
@click.option("--most-tokens", type=click.IntRange(min=4), default=512, show_default=True, help="Of a text.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@machine_options
@json_option
def command(base: Path, heads: Path, data: Path | None, as_json: bool, **told: Any) -> None:
    """Tell how well HEADS foretell on BASE, which may be a merge of their own base with others.

    For each head how often the true token is among its first one to five, and how many tokens a pass gives,
    with 95 % intervals over the texts, beside what the heads did on their own base.
    """
    from modelyard.heads.learning.training import HELD_OUT
    from modelyard.heads.measuring.checking import kept_share

    data = heads / HELD_OUT if data is None else data
    checked, tally = _measured(base, heads, data, told)
    compared: Checked | None = None
    kept: Estimate | None = None
    if told["own_base"] is not None:
        compared, before = _measured(told["own_base"], heads, data, told)
        kept = kept_share(tally, before, seed=told["seed"])
    if as_json:
        print_json(
            {
                **checked.as_json(),
                "own": None if compared is None else compared.as_json(),
                "kept": None if kept is None else {"value": kept.value, "low": kept.low, "high": kept.high},
            }
        )
        return
    _show(checked, compared, kept)


def _measured(base: Path, heads: Path, data: Path, told: dict[str, Any]) -> Any:
    from modelyard.heads.base import Base
    from modelyard.heads.learning.data import read_corpus
    from modelyard.heads.measuring.checking import answered_by, check_heads

    opened = Base.open(base, dtype=told["dtype"], device=told["device"])
    corpus = read_corpus(data, opened.tokenizer, ends=opened.end_tokens, most_tokens=told["most_tokens"])
    if told["answers"] is not None:
        corpus = answered_by(opened, corpus, most_tokens=told["answers"])
    return check_heads(opened, heads, corpus, seed=told["seed"])


def _show(checked: Checked, compared: Checked | None, kept: Estimate | None) -> None:
    whose = "their own base" if checked.own_base else "not the base that they were trained on"
    click.echo(f"base            {checked.base} ({whose})")
    click.echo(f"texts           {checked.texts:,} with {checked.positions:,} positions")
    click.echo(f"written by it   {checked.own_words.shown(percent=True)} of the tokens are its likeliest")
    if compared is not None and not compared.own_base:
        click.echo(f"note            {compared.base} is not the base that they were trained on either")
    click.echo()
    click.echo(f"{'head':<5} {'among the first':<16} {'here':<24} on their own base")
    for k, row in enumerate(checked.accuracy):
        for r, found in enumerate(row):
            before = _before(checked, compared, k, r)
            click.echo(f"{k + 1 if r == 0 else '':<5} {r + 1:<16} {found.shown(percent=True):<24} {before}")
    click.echo()
    click.echo(f"tokens per pass {checked.tokens_per_pass.shown()} with a tree of {checked.nodes} nodes")
    if compared is not None:
        click.echo(f"  on their own  {compared.tokens_per_pass.shown()}")
    if kept is not None:
        click.echo(f"kept            {kept.shown(percent=True)} of the drafted tokens that were right there")
    click.echo(checked.reason())


def _before(checked: Checked, compared: Checked | None, head: int, rank: int) -> str:
    """What was measured on the other base, or else what the record says of the texts held out then."""
    if compared is not None:
        return compared.accuracy[head][rank].shown(percent=True)
    if head < len(checked.recorded) and rank < len(checked.recorded[head]):
        return f"{100 * checked.recorded[head][rank]:.1f} % (record, its own texts)"
    return "-"
