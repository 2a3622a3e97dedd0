"""`modelyard router`: a group of commands."""

from __future__ import annotations

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "fit": "Fit a router on a table of answers.",
    "show": "Tell what a router knows of each model.",
    "explain": "Tell why a prompt goes to a model: every candidate's standing and the nearest prompts.",
    "curve": "Measure a router on held-out answers: quality over cost, beside what needs no router.",
    "compare": "Compare two routers on the same held-out answers, with an interval of the difference.",
    "cost": "Tell what a router costs a day, beside each model alone.",
    "cascade": "Calibrate when a cheap model's answer is not to be trusted, and measure the cascade.",
    "learn": "Learn from answers in service: what is known of each model, by counts that decay.",
    "drift": "Tell whether recent prompts are still like those that a router was fitted on.",
    "facts": "Declare a model's context, tools, vision and latency, which requests may ask for.",
    "map": "Tell which model wins in each cluster of prompts, and draw it.",
    "profiles": "Tell each model's predicted error in each cluster, and draw it.",
}


@click.group(name="router", cls=LazyGroup, package="modelyard.cli.router", known=_COMMANDS)
def command() -> None:
    """Fit, inspect and measure routers over a pool of models."""
