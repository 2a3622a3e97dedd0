"""`modelyard router profiles`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import plot_option


@click.command(name="profiles")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@plot_option
@json_option
def command(folder: Path, plot: Path | None, as_json: bool) -> None:
    """Tell each model's predicted error in each cluster; `*` marks clusters without an answer of it."""
    from modelyard.routing.pictures import check_picture, profiles_picture, write_picture
    from modelyard.routing.router import Router

    if plot:
        check_picture(plot)
    router = Router.load(folder)
    models = router.models
    if plot:
        write_picture(profiles_picture(router), plot)
    if as_json:
        print_json(
            {
                name: {"errors": models.psi_mk[i].tolist(), "answers": models.answers_mk[i].tolist()}
                for i, name in enumerate(router.names)
            }
        )
        return
    width = max(len("model"), *(len(name) for name in router.names))
    click.echo(f"{'model':<{width}}" + "".join(f" {k:>6}" for k in range(len(router.clusters))))
    for i, name in enumerate(router.names):
        cells = zip(models.psi_mk[i], models.answers_mk[i], strict=True)
        line = "".join(f" {psi:>5.3f}{' ' if answers else '*'}" for psi, answers in cells)
        click.echo(f"{name:<{width}}{line}".rstrip())
