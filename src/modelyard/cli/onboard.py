"""`modelyard onboard`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.router.options import results_option
from modelyard.core.errors import RoutingError


@click.command(name="onboard")
@click.argument("name")
@results_option
@click.option(
    "--router", "folder", type=click.Path(path_type=Path), default=Path("router"), show_default=True,
    help="The folder of the router, which is replaced.",
)  # fmt: skip
def command(name: str, results: tuple[Path, ...], folder: Path) -> None:
    """Add the model NAME to a router from a few of its answers; nothing else in the router changes.

    Rows of other models are ignored.
    """
    import numpy as np

    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.router import Router

    read = read_answer_table(results)
    if name not in read.answers.models:
        known = ", ".join(read.answers.models)
        raise RoutingError(f"{results[0]}: no row has the model {name!r}, but {known}; give its results")
    answers = read.answers.of_models([read.answers.models.index(name)])
    asked = np.flatnonzero(~np.isnan(answers.errors_mn[0]))
    router = Router.load(folder).onboard(
        name,
        {answers.examples[i]: float(answers.errors_mn[0, i]) for i in asked},
        cost_usd=float(answers.mean_cost_usd()[0]),
        texts={answers.examples[i]: read.prompts[i] for i in asked},
    )
    router.save(folder)
    click.echo(f"{folder}: {name} from {len(asked)} answers; now {', '.join(router.names)}")
