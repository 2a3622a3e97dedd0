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
    models = router.models
    record = {
        "embedder": router.embedder.name,
        "estimator": router.candidate.name,
        "prompts": len(router.pool.examples),
        "dearest_usd": router.pool.dearest_usd,
        "models": [
            {
                "name": name,
                "answers": int(models.answers_mk[i].sum()),
                "cost_usd": float(models.cost_usd_m[i]),
                "errors": models.psi_mk[i].tolist(),
                "deviations": models.sd_mk[i].tolist(),
            }
            for i, name in enumerate(models.names)
        ],
    }
    if as_json:
        print_json(record)
        return
    for key in ("embedder", "estimator", "prompts"):
        click.echo(f"{key:<10} {record[key]}")
    click.echo(f"\n{'model':<24} {'answers':>8} {'USD':>10} {'error':>7}  least to most by cluster")
    for i, name in enumerate(models.names):
        psi_k = models.psi_mk[i]
        click.echo(
            f"{name:<24} {models.answers_mk[i].sum():>8} {models.cost_usd_m[i]:>10.3g} {psi_k.mean():>7.3f}  "
            f"{psi_k.min():.3f} to {psi_k.max():.3f}"
        )
