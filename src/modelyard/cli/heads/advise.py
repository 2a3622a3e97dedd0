"""`modelyard heads advise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.heads.loading import counted, machine_options
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.heads.choosing.advice import Advice


@click.command(name="advise")
@click.argument("base", type=click.Path(path_type=Path))
@click.option("--heads", type=click.IntRange(1, 64), default=4, show_default=True, help="How many heads.")
@click.option(
    "--shortlist", type=click.IntRange(min=2), default=8192, show_default=True,
    help="Tokens that could be drafted.",
)  # fmt: skip
@click.option(
    "--clock", type=click.Choice(("wall", "cpu")), default="wall", show_default=True,
    help="Seconds that pass, or of the processor.",
)  # fmt: skip
@machine_options
@json_option
def command(base: Path, as_json: bool, **told: Any) -> None:
    """Tell whether heads can pay for BASE on this machine, before any are trained.

    Passes over trees of all sizes are timed with heads that were never trained. Beside each stands how many
    tokens a pass must give to be worth its cost, and how many the heads of a small model gave.
    """
    from modelyard.heads.base import Base
    from modelyard.heads.choosing.advice import advise

    opened = Base.open(base, dtype=told["dtype"], device=told["device"])
    with counted("timing", quiet=as_json) as observe:
        advice = advise(
            opened, heads=told["heads"], drafted=told["shortlist"], clock=told["clock"], observe=observe
        )
    if as_json:
        print_json(advice.as_json())
        return
    _show(advice)


def _show(advice: Advice) -> None:
    from modelyard.heads.choosing.advice import WORTH

    click.echo(f"{'nodes':>5}  {'pays above':>10}  {'expected':>8}  {'speed-up':>8}")
    for each in advice.prospects:
        click.echo(f"{each.nodes:>5}  {each.cost:>10.2f}  {each.tokens_per_pass:>8.2f}  {each.speedup:>8.2f}")
    best, where = advice.best, f"{advice.dtype}, {advice.threads} threads, {advice.clock} time"
    if best is None:
        click.echo(
            f"no: no tree is expected to be {WORTH:g} times as fast as plain decoding here ({where});"
            " decode plainly, or try another --dtype"
        )
    else:
        click.echo(f"yes: about {best.speedup:.2f} times with {best.nodes} nodes ({where})")
