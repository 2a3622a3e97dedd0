"""`modelyard router fit`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json


@click.command(name="fit")
@click.option(
    "--answers", "table", type=click.Path(path_type=Path), required=True,
    help="CSV or Parquet with the columns model, example_id, prompt, score (0 to 1), cost_usd.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("router"), show_default=True,
    help="The folder of the router; one that lies there is replaced.",
)  # fmt: skip
@click.option(
    "--clusters", type=click.IntRange(min=1), default=20, show_default=True, help="Clusters of prompts."
)
@click.option(
    "--estimator", default="low_rank", show_default=True,
    help="low_rank, transfer, empirical_bayes or laplace.",
)  # fmt: skip
@click.option("--embedder", default="wordllama", show_default=True, help="An installed embedder's name.")
@json_option
def command(table: Path, output: Path, clusters: int, estimator: str, embedder: str, as_json: bool) -> None:
    """Fit a router on a table of answers."""
    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.embedders import load_embedder
    from modelyard.routing.router import Router, RouterOptions

    options = RouterOptions(clusters=clusters, estimator=estimator)
    read = read_answer_table(table)
    router = Router.fit(read.answers, read.prompts, load_embedder(embedder), options)
    router.save(output)
    if as_json:
        print_json({"router": str(output), "models": router.names, "prompts": len(read.prompts)})
        return
    click.echo(
        f"{output}: {len(router.names)} models, {len(read.prompts)} prompts in {clusters} clusters, "
        f"{estimator}, {embedder}"
    )
