"""`modelyard router show`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json


@click.command(name="show")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Tell what a router knows of each model: its answers, its price, its predicted errors."""
    from modelyard.routing.router import Router

    router = Router.load(folder)
    record = {
        "embedder": router.embedder.name,
        "estimator": router.options.estimator,
        "clusters": len(router.clusters),
        "prompts": len(router.pool.examples),
        "dearest_usd": router.pool.dearest_usd,
        "models": [
            {
                "name": model.name,
                "answers": int(model.answers_k.sum()),
                "cost_usd": model.cost_usd,
                "errors": model.psi_k.tolist(),
                "deviations": model.sd_k.tolist(),
            }
            for model in router.models
        ],
    }
    if as_json:
        print_json(record)
        return
    for name in ("embedder", "estimator", "clusters", "prompts"):
        click.echo(f"{name:<10} {record[name]}")
    click.echo(f"\n{'model':<24} {'answers':>8} {'USD':>10} {'error':>7}  least to most by cluster")
    for model in router.models:
        psi = model.psi_k
        click.echo(
            f"{model.name:<24} {model.answers_k.sum():>8} {model.cost_usd:>10.3g} {psi.mean():>7.3f}  "
            f"{psi.min():.3f} to {psi.max():.3f}"
        )
