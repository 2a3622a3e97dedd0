"""`modelyard router facts`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, print_json


@click.command(name="facts")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("name", metavar="[MODEL]", required=False)
@click.option("--context-tokens", type=click.IntRange(min=1), help="How many tokens it has room for.")
@click.option("--tools/--no-tools", default=None, help="Whether it uses tools.")
@click.option("--vision/--no-vision", default=None, help="Whether it reads images.")
@click.option("--online/--offline", default=None, help="ELPA's group: whether it learns while it serves.")
@click.option("--latency-s", type=float, help="How long an answer takes in the mean.")
@click.option("--latency-p95-s", type=float, help="How long 95 of 100 answers take at most.")
@json_option
def command(folder: Path, name: str | None, as_json: bool, **told: Any) -> None:
    """Declare facts of a MODEL, or show what is declared of all.

    A fact that is given replaces the one before. What is not known is never assumed: a request that asks
    for it does not go to that model.
    """
    from modelyard.routing.facts import FACTS, Facts
    from modelyard.routing.router import Router

    router, given = Router.load(folder), Facts(**told)
    if given.known():
        if name is None:
            raise click.UsageError("name the model that the facts are of")
        router = router.declare(name, given)
        router.save(folder)
    if name is not None:
        router.models.row(name)
    shown = {each: router.facts.get(each, Facts()) for each in ([name] if name else router.names)}
    if as_json:
        print_json({each: {fact: getattr(facts, fact) for fact in FACTS} for each, facts in shown.items()})
        return
    width = max(len("model"), *(len(each) for each in shown))
    click.echo(f"{'model':<{width}} " + " ".join(f"{fact:>14}" for fact in FACTS))
    for each, facts in shown.items():
        click.echo(f"{each:<{width}} " + " ".join(f"{_told(getattr(facts, fact)):>14}" for fact in FACTS))


def _told(value: float | None) -> str:
    if value is None:
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:g}"
