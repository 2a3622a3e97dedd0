"""`modelyard route`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import request_of, request_options, router_option


@click.command(name="route")
@click.argument("prompt")
@router_option
@request_options
@json_option
def command(prompt: str, folder: Path, as_json: bool, **asked: Any) -> None:
    """Tell which model PROMPT should go to. Without a weight or a limit: the one of least error."""
    from modelyard.routing.router import Router

    decision = Router.load(folder).route(prompt, request_of(asked))
    if as_json:
        print_json(asdict(decision))
        return
    click.echo(
        f"{decision.chosen}: predicted error {decision.predicted_error:.3f} "
        f"({decision.low:.3f} to {decision.high:.3f}), {decision.cost_usd:g} USD; {decision.reason}"
    )
