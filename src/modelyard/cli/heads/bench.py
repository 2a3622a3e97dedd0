"""`modelyard heads bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.heads.loading import counted, machine_options
from modelyard.cli.heads.options import plot_option
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.heads.decoding.decoder import Decoder
    from modelyard.heads.measuring.benching import Way, WayResult
    from modelyard.heads.measuring.intervals import Estimate


@click.command(name="bench")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("heads", type=click.Path(path_type=Path))
@click.option(
    "--prompts", type=click.Path(path_type=Path), required=True, metavar="FILE.jsonl",
    help='Prompts, one object a line: {"prompt"} or {"messages"}.',
)  # fmt: skip
@click.option(
    "--max-new-tokens", type=click.IntRange(min=2), default=128, show_default=True, help="Of each prompt."
)
@click.option("--lookup", type=click.IntRange(min=0), default=6, show_default=True, help="Places for lookup.")
@click.option("--regret/--no-regret", default=True, help="Hold the tokens against BASE in float32.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@plot_option
@machine_options
@json_option
def command(base: Path, heads: Path, prompts: Path, as_json: bool, plot: Path | None, **told: Any) -> None:
    """Decode every prompt plainly, with the tree of HEADS, and with prompt lookup, in turns.

    Told are tokens of a pass, milliseconds for each token, and how many times faster than plain decoding by
    the same loop each way is, with 95 % intervals over the prompts; and how far the tokens are from those of
    BASE in float32.
    """
    from modelyard.heads.base import Base
    from modelyard.heads.decoding.decoder import open_decoder
    from modelyard.heads.measuring.benching import compare
    from modelyard.heads.measuring.prompts import read_prompts

    decoder = open_decoder(base, heads, dtype=told["dtype"], device=told["device"])
    reference = Base.open(base, device=told["device"]) if told["regret"] else None
    read = read_prompts(prompts, decoder.base.tokenizer)
    with counted("prompts", quiet=as_json) as observe:
        results = compare(
            _ways(decoder, told["max_new_tokens"], told["lookup"]), read, reference=reference,
            seed=told["seed"], observe=observe,
        )  # fmt: skip
    if plot is not None:
        from modelyard.heads.pictures import bench_picture, write_picture

        write_picture(bench_picture(results), plot)
    if as_json:
        print_json([each.as_json() for each in results])
        return
    _show(results)


def _ways(decoder: Decoder, most: int, lookup: int) -> list[Way]:
    from modelyard.heads.decoding.decoder import Decoder
    from modelyard.heads.decoding.settings import DecodeSettings
    from modelyard.heads.measuring.benching import PLAIN, decoder_way

    simple, looking = DecodeSettings(max_new_tokens=most), DecodeSettings(max_new_tokens=most, lookup=lookup)
    plain = Decoder(decoder.base)
    ways = [decoder_way(PLAIN, plain, simple), decoder_way("tree", decoder, simple)]
    if lookup:
        ways += [decoder_way("lookup", plain, looking), decoder_way("tree and lookup", decoder, looking)]
    return ways


def _show(results: list[WayResult]) -> None:
    click.echo(
        f"{'':<16} {'tokens a pass':<22} {'ms a token':>10} {'cpu ms':>7}  {'speed-up':<22} {'by cpu':<22}"
        " identical  regret"
    )
    for each in results:
        regret = "" if each.regret is None else f"{each.regret.flip_rate:.2%} of {each.regret.tokens} flip"
        click.echo(
            f"{each.name:<16} {_span(each.tokens_per_pass):<22} {each.wall_ms_per_token:>10.1f}"
            f" {each.cpu_ms_per_token:>7.1f}  {_span(each.wall_speedup):<22} {_span(each.cpu_speedup):<22}"
            f" {each.identical:>4}/{each.prompts:<4} {regret}"
        )


def _span(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
