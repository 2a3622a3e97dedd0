"""`modelyard route`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json


@click.command(name="route")
@click.argument("prompt")
@click.option(
    "--router", "folder", type=click.Path(path_type=Path), default=Path("router"), show_default=True,
    help="The folder of the router.",
)  # fmt: skip
@click.option("--lambda", "lambda_", type=float, help="How much error the dearest model's price is worth.")
@click.option("--lambda-usd", type=float, help="How much error one USD is worth.")
@click.option("--budget-usd", type=float, help="The most that the answer may cost.")
@click.option("--quality", type=float, help="The least predicted quality, 0 to 1; the cheapest such model.")
@click.option("--allow", multiple=True, metavar="MODEL", help="Only this model; may be repeated.")
@click.option("--deny", multiple=True, metavar="MODEL", help="Never this model; may be repeated.")
@json_option
def command(prompt: str, folder: Path, as_json: bool, **asked: float | tuple[str, ...] | None) -> None:
    """Tell which model PROMPT should go to. Without a weight or a limit: the one of least error."""
    from modelyard.routing.decision import Request
    from modelyard.routing.router import Router

    request = Request(**asked)  # type: ignore[arg-type]  # click gives them by their names and types
    decision = Router.load(folder).route(prompt, request)
    if as_json:
        print_json(asdict(decision))
        return
    click.echo(
        f"{decision.chosen}: predicted error {decision.predicted_error:.3f} "
        f"({decision.low:.3f} to {decision.high:.3f}), {decision.cost_usd:g} USD; {decision.reason}"
    )
