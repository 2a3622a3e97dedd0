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

    Give each answer once: what is learned twice counts twice. Models that the router does not know are
    left out; nothing of a model changes where it has not answered.
    """
    import numpy as np

    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.router import Router

    router, table = Router.load(folder), read_answer_table(results)
    names = [name for name in table.answers.models if name in router.names]
    if not names:
        raise RoutingError(
            f"{results[0]}: has no answer of {', '.join(router.names)}; give answers of models in the router"
        )
    before = dict(zip(router.names, router.mean_errors(), strict=True))
    embeddings, seen = router.embedder.embed(table.prompts), {}
    for name in names:
        errors = table.answers.errors_mn[table.answers.models.index(name)]
        told = np.flatnonzero(~np.isnan(errors))
        router = router.learn(name, embeddings[told], errors[told], half_life=half_life)
        seen[name] = len(told)
    router.save(folder)
    after = dict(zip(router.names, router.mean_errors(), strict=True))
    rows = [
        {"model": name, "answers": seen[name], "before": float(before[name]), "after": float(after[name])}
        for name in names
    ]
    if as_json:
        print_json({"router": str(folder), "models": rows})
        return
    click.echo(f"{'model':<24} {'answers':>8} {'error before':>13} {'after':>7}")
    for row in rows:
        click.echo(f"{row['model']:<24} {row['answers']:>8} {row['before']:>13.3f} {row['after']:>7.3f}")
