"""`modelyard router map`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import plot_option


@click.command(name="map")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--lambda", "lambda_", type=click.FloatRange(min=0), default=0.0, show_default=True,
    help="How much error the dearest model's price is worth.",
)  # fmt: skip
@plot_option
@json_option
def command(folder: Path, lambda_: float, plot: Path | None, as_json: bool) -> None:
    """Tell which model wins in each cluster of prompts.

    The plot shows the fit prompts in the plane of their two principal components, each in the colour of
    the model that it would go to.
    """
    from modelyard.routing.pictures import check_picture, map_picture, territory, write_picture
    from modelyard.routing.router import Router

    if plot:
        check_picture(plot)
    router = Router.load(folder)
    won = territory(router, lambda_)
    if plot:
        write_picture(map_picture(router, won, lambda_=lambda_), plot)
    rows = [
        {"cluster": k, "prompts": int(size), "model": won.names[int(i)] if i >= 0 else None}
        for k, (size, i) in enumerate(zip(won.prompts_k, won.winner_k, strict=True))
    ]
    if as_json:
        print_json({"lambda": lambda_, "clusters": rows})
        return
    click.echo(f"{'cluster':<8} {'prompts':>8}  model")
    for row in rows:
        click.echo(f"{row['cluster']:<8} {row['prompts']:>8}  {row['model'] or '-'}")
