"""`modelyard router fit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import results_option


@click.command(name="fit")
@results_option
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("router"), show_default=True,
    help="The folder of the router; one that lies there is replaced.",
)  # fmt: skip
@click.option("--clusters", type=click.IntRange(min=1), help="Clusters of prompts. [default: chosen]")
@click.option(
    "--estimator", help="low_rank, transfer, empirical_bayes, nearest, means or laplace. [default: "
    "low_rank, its options chosen on the known models; empirical_bayes with fewer than six]",
)  # fmt: skip
@click.option(
    "--validation", "expected", type=click.IntRange(min=1), default=400, show_default=True,
    help="How many answers a new model will have; options are chosen for so many.",
)  # fmt: skip
@click.option(
    "--learned-map", "learned", is_flag=True,
    help="Learn the clusters from where known models err, starting from plain ones.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the clusters.")
@click.option("--embedder", default="wordllama", show_default=True, help="An installed embedder's name.")
@json_option
def command(results: tuple[Path, ...], output: Path, embedder: str, as_json: bool, **told: Any) -> None:
    """Fit a router on the results of known models."""
    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.embedders import load_embedder
    from modelyard.routing.fitting import RouterOptions
    from modelyard.routing.router import Router

    options = RouterOptions(answers=told.pop("expected"), **told)
    read = read_answer_table(results)
    router = Router.fit(read.answers, read.prompts, load_embedder(embedder), options)
    router.save(output)
    if as_json:
        told = {"candidate": asdict(router.candidate), "embedder": embedder, "prompts": len(read.prompts)}
        print_json({"router": str(output), "models": router.names, **told})
        return
    click.echo(
        f"{output}: {len(router.names)} models, {len(read.prompts)} prompts, {embedder}, "
        f"{router.candidate.name}"
    )
