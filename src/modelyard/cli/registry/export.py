"""`modelyard registry export`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.registry.options import opened, registry_option
from modelyard.core.errors import RegistryError


@click.command(name="export")
@click.argument("name", required=False)
@click.option("--to", type=click.Choice(("mlflow",)), required=True, help="The tool that gets a copy.")
@click.option(
    "--tracking-uri", metavar="URI", help="mlflow: its server or database. [default: MLFLOW_TRACKING_URI]"
)
@yard_option
@registry_option
@json_option
def command(
    name: str | None, to: str, tracking_uri: str | None, yard_dir: Path, url: str | None, as_json: bool
) -> None:
    """Copy the versions of NAME, or all, to an MLflow server, with what stage and prod serve.

    Every move of an alias becomes a tag of the version that it went to: who, when, why and on what evidence.
    A later export adds what is new and brings the rest up to date. Nothing is promoted there: an alias of
    this registry that was moved in MLflow is moved back.
    """
    from modelyard.core.locks import held
    from modelyard.registry.exporters.mlflow import MlflowExporter

    with opened(yard_dir, url) as (yard, registry):
        lock = yard.root / "registry-export.lock"
        try:
            with held(lock):
                done = MlflowExporter(tracking_uri=tracking_uri).export(registry, name)
        except BlockingIOError as error:
            raise RegistryError(
                f"{lock}: another process exports this registry; wait until it has ended"
            ) from error
    if as_json:
        print_json({"to": to, **asdict(done)})
        return
    click.echo(
        f"{done.place}: {len(done.added)} versions added, {len(done.updated)} updated, "
        f"{len(done.known)} there already"
    )
    for alias, served in done.aliases.items():
        click.echo(f"  {alias}: {served}")
