"""`modelyard router`: a group of commands."""

from __future__ import annotations

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "fit": "Fit a router on a table of answers.",
    "show": "Tell what a router knows of each model.",
    "curve": "Measure a router on held-out answers: quality over cost, beside what needs no router.",
}


@click.group(name="router", cls=LazyGroup, package="modelyard.cli.router", known=_COMMANDS)
def command() -> None:
    """Fit, inspect and measure routers over a pool of models."""
