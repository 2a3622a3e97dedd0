"""`modelyard merge run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.merge.options import carry_out, merge_options, plan_record
from modelyard.cli.options import json_option, print_json

if TYPE_CHECKING:
    from modelyard.merging.engine import MergeOptions


@click.command(name="run")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE",
    help="Replace a value of the file, such as parameters.t=0.4 or models.1.parameters.weight=0.3.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check everything and tell what would be written.")
@merge_options
@json_option
def command(
    config: Path, out: Path, assignments: tuple[str, ...], dry_run: bool, options: MergeOptions, as_json: bool
) -> None:
    """Merge checkpoints as CONFIG, a mergekit YAML file, says, into the folder OUT.

    Model paths are relative to the working directory. OUT appears when it is whole; a killed merge
    leaves nothing there and goes on with --resume.
    """
    from modelyard.merging.chain import plan_chain
    from modelyard.merging.config import read_recipes

    recipes = read_recipes(config, assignments=assignments)
    if dry_run:
        plan = plan_chain(recipes, file=str(config), folder=Path())
        _show_plan(plan_record(plan, options), as_json=as_json)
        return
    carry_out(recipes, out, options, file=str(config), as_json=as_json)


def _show_plan(record: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    for name, value in record.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' '):<14} {shown}")
