"""`modelyard tune plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelyard.cli.options import yard_option
from modelyard.cli.tune.studies import opened, storage_option

if TYPE_CHECKING:
    from modelyard.tuning.reporting.pictures import Kind

#: As `modelyard.tuning.reporting.pictures` has them, which is not loaded for a help text.
_KINDS = ("history", "curves", "parallel", "importance", "slices", "pareto")


@click.command(name="plot")
@click.argument("study")
@click.option(
    "--kind", type=click.Choice(_KINDS), default="history", show_default=True,
    help="Values by trial, learning curves, all parameters together, which of them matter (an estimate), "
    "each by itself, or the Pareto front of several objectives.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="FILE.png or FILE.svg."
)
@yard_option
@storage_option
def command(study: str, kind: Kind, out: Path, yard_dir: Path, url: str | None) -> None:
    """Draw STUDY, a name or its beginning, while it runs or after."""
    from modelyard.tuning.reporting.pictures import check_picture, picture, write_picture

    check_picture(out)
    write_picture(picture(opened(yard_dir, study, url), kind), out)
    click.echo(f"{out}: {kind}")
