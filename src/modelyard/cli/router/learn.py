"""`modelyard router learn`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import results_option
from modelyard.core.errors import RoutingError


@click.command(name="learn")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@results_option
@click.option(
    "--half-life", type=click.FloatRange(0, min_open=True), default=500.0, show_default=True,
    help="Answers of a model in a cluster after which what was known before counts half.",
)  # fmt: skip
@json_option
def command(folder: Path, results: tuple[Path, ...], half_life: float, as_json: bool) -> None:
    """Learn from answers in service: the router DIR is replaced by one that has seen these results.

    The rows of a table, and the folders, are taken in the order of time, the oldest first. Give each answer
    once: what is learned twice counts twice. Models that the router does not know are left out; nothing of a
    model changes where it has not answered. Costs are followed too, as far as they are known.
    """
    from modelyard.routing.answer_table import read_answer_table, read_turns
    from modelyard.routing.router import Router

    router, table = Router.load(folder), read_answer_table(results)
    names = [name for name in table.answers.models if name in router.names]
    if not names:
        raise RoutingError(
            f"{results[0]}: has no answer of {', '.join(router.names)}; give answers of models in the router"
        )
    before = dict(zip(router.names, router.mean_errors(), strict=True))
    embeddings, turns = router.embedder.embed(table.prompts), read_turns(results, table.answers)
    for name in names:
        told = turns[name]
        router = router.learn(
            name, embeddings[told.columns_t], told.errors_t, half_life=half_life, costs_usd_n=told.costs_usd_t
        )
    router.save(folder)
    after = dict(zip(router.names, router.mean_errors(), strict=True))
    rows = [
        {
            "model": name,
            "answers": len(turns[name].columns_t),
            "before": float(before[name]),
            "after": float(after[name]),
        }
        for name in names
    ]
    if as_json:
        print_json({"router": str(folder), "models": rows})
        return
    click.echo(f"{'model':<24} {'answers':>8} {'error before':>13} {'after':>7}")
    for row in rows:
        click.echo(f"{row['model']:<24} {row['answers']:>8} {row['before']:>13.3f} {row['after']:>7.3f}")
