"""`modelyard heads generate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.heads.loading import machine_options
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.heads.decoding.decoder import Decoded
    from modelyard.heads.decoding.settings import DecodeSettings


@click.command(name="generate")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("heads", type=click.Path(path_type=Path), required=False)
@click.option("--prompt", help="What to continue; standard input where it is missing.")
@click.option("--raw", is_flag=True, help="Continue the very text, without the chat template.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="So many at most."
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True,
    help="0 takes the likeliest token.",
)  # fmt: skip
@click.option(
    "--top-k", type=click.IntRange(min=0), default=0, help="Draw from the likeliest tokens; 0 is no limit."
)
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
    help="Draw from the likeliest tokens that together have this chance.",
)  # fmt: skip
@click.option(
    "--repetition-penalty", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
    help="Above 1, tokens that were there before are less likely.",
)  # fmt: skip
@click.option("--stop", multiple=True, help="Text at which to end; may be given several times.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option("--typical", is_flag=True, help="Accept likely drafts: faster, and another distribution.")
@click.option(
    "--lookup", type=click.IntRange(min=0), default=0, show_default=True,
    help="Places of a pass for what followed the last tokens where they stood before.",
)  # fmt: skip
@click.option(
    "--exact", is_flag=True, help="In bfloat16 too, let the tokens be the same whatever is drafted."
)
@click.option("--report", is_flag=True, help="Tell passes, accepted drafts and seconds at the end.")
@machine_options
@json_option
def command(base: Path, heads: Path | None, prompt: str | None, as_json: bool, **told: Any) -> None:
    """Continue a prompt by BASE and its HEADS; the text appears as it is written.

    Without HEADS the same loop decodes plainly, or by --lookup alone. In float32 the tokens are those of
    plain decoding. In bfloat16 the shapes of matrices alone change a few in a hundred; with --exact all
    passes have one shape and sums one order, so that they are the same with HEADS, without, and by any tree.
    """
    from modelyard.heads.decoding.decoder import open_decoder
    from modelyard.heads.turns import Turns

    text = sys.stdin.read() if prompt is None else prompt
    settings = _settings(told)
    decoder = open_decoder(base, heads, dtype=told["dtype"], device=told["device"], exact=told["exact"])
    tokenizer = decoder.base.tokenizer
    ids = tokenizer.encode(text) if told["raw"] else Turns(tokenizer).asked(text)
    decoded = decoder.generate(ids, settings, None if as_json else _told_at_once)
    if as_json:
        print_json(_record(decoded, prompt_tokens=len(ids)))
        return
    click.echo()
    if told["report"]:
        _report(decoded)


def _settings(told: dict[str, Any]) -> DecodeSettings:
    from modelyard.heads.decoding.settings import DecodeSettings

    names = (
        "max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "stop", "seed", "typical",
        "lookup",
    )  # fmt: skip
    return DecodeSettings(**{name: told[name] for name in names})


def _told_at_once(piece: str) -> None:
    click.echo(piece, nl=False)


def _record(decoded: Decoded, *, prompt_tokens: int) -> dict[str, Any]:
    return {
        "text": decoded.text, "tokens": list(decoded.tokens), "finish": decoded.finish,
        "prompt_tokens": prompt_tokens, "passes": decoded.passes,
        "tokens_per_pass": round(decoded.tokens_per_pass, 4),
        "accepted": {str(count): times for count, times in decoded.accepted.items()},
        "wall_s": round(decoded.wall_s, 4), "cpu_s": round(decoded.cpu_s, 4),
    }  # fmt: skip


def _report(decoded: Decoded) -> None:
    tokens = len(decoded.tokens)
    accepted = ", ".join(f"{count}: {times}" for count, times in decoded.accepted.items())
    for line in (
        f"{tokens} tokens in {decoded.passes} passes: {decoded.tokens_per_pass:.2f} tokens a pass",
        f"drafts accepted in a pass: {accepted}",
        f"{decoded.wall_s:.2f} s, {1e3 * decoded.wall_s / tokens:.1f} ms a token"
        f" ({1e3 * decoded.cpu_s / tokens:.1f} ms of the processor); ended by {decoded.finish}",
    ):
        click.echo(line, err=True)
