"""`modelyard router drift`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json

_SHOWN = 8


@click.command(name="drift")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--prompts", "recent", type=click.Path(path_type=Path), required=True, multiple=True, metavar="PATH",
    help="Recent prompts: a folder with prompts.parquet, or a .parquet or .jsonl with prompt or text in each "
    "record; may be repeated.",
)  # fmt: skip
@click.option(
    "--alpha", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
    help="The chance of a false alarm.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the drawn null.")
@json_option
def command(folder: Path, recent: tuple[Path, ...], alpha: float, seed: int, as_json: bool) -> None:
    """Tell whether recent prompts are still like those that the router DIR was fitted on.

    Status 3 where they are not. Two tests, corrected for being two: do prompts fall into clusters of both
    samples in other shares, and are they farther from any fit prompt than fit prompts are from one another.
    """
    from modelyard.routing.drift import find_drift
    from modelyard.routing.recent import read_recent
    from modelyard.routing.router import Router

    router = Router.load(folder)
    texts = read_recent(recent)
    found = find_drift(router, router.embedder.embed(texts), alpha=alpha, seed=seed)
    if as_json:
        told = {**asdict(found), "fit_k": found.fit_k.tolist(), "recent_k": found.recent_k.tolist()}
        print_json({**told, "p_value": found.p_value})
    else:
        click.echo(
            f"{found.prompts} prompts: {'DRIFT' if found.alarm else 'no drift'}, p = {found.p_value:.4g} "
            f"(shares of clusters {found.p_mix:.4g}, distance {found.p_far:.4g})"
        )
        near = f"{found.recent_similarity:.3f}, of fit prompts {found.fit_similarity:.3f}"
        click.echo(f"similarity to the nearest fit prompt {near}")
        shares = list(
            zip(found.fit_k / found.fit_k.sum(), found.recent_k / found.recent_k.sum(), strict=True)
        )
        moved = sorted(range(len(shares)), key=lambda k: -abs(shares[k][1] - shares[k][0]))
        for k in moved[:_SHOWN]:
            click.echo(f"cluster {k:<4} {shares[k][0]:>7.1%} of the fit, {shares[k][1]:>7.1%} of these")
        for name, clusters in found.unsupported.items():
            click.echo(
                f"{name} has no answer in clusters {', '.join(map(str, clusters))}, where prompts fall"
            )
    if found.alarm:
        sys.exit(3)
