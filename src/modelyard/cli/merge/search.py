"""`modelyard merge search`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelyard.cli.merge.candidates import measuring_options, run_search


@click.command(name="search")
@click.argument("space", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--trials", type=click.IntRange(min=1), default=30, show_default=True,
    help="Candidates in all; those of an earlier call with the same search count.",
)  # fmt: skip
@click.option(
    "--sampler", type=click.Choice(("tpe", "random")), default="tpe", show_default=True,
    help="How candidates are proposed.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of the proposals, and of methods that drop at random.")  # fmt: skip
@measuring_options
def command(space: Path, **told: Any) -> None:
    """Find the weights and layers of a merge by measuring candidates, and merge the best into OUT.

    SPACE is a mergekit YAML file with one more key, `search`, that gives dotted keys a range
    ({low: 0, high: 1}, also step, integer, gradient) or choices ({choices: [a, b]}); `start` in it
    lists candidates to measure first.

    Killed or stopped, it goes on with the same command. OUT has all trials in search.json.
    """
    run_search(space, told)
