"""`modelyard integrate`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json
from modelyard.core.clock import stamp, utc_now

METHODS = ("auto", "inverse_score", "boa")


@click.command(name="integrate")
@click.option(
    "--config", "config", required=True, type=click.Path(path_type=Path), help="ELPA integrate file (JSON)."
)
@click.option(
    "--output", "output", required=True, type=click.Path(path_type=Path), help="Where the policy goes."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="auto: boa where every model has truth and forecasts on the same rows, else inverse_score.",
)
@json_option
def command(config: Path, output: Path, method: str, as_json: bool) -> None:
    """Build an ELPA policy from the validation errors that an ELPA file names.

    Models with an error that is not a finite number are excluded with the reason.
    """
    if output.resolve() == config.resolve() or (
        output.exists() and config.exists() and output.samefile(config)
    ):
        raise click.BadParameter("is the --config file, which it would replace", param_hint="--output")
    from modelyard.ensemble.config_policy import integrate_config  # pandas and scipy load here, not before
    from modelyard.ensemble.elpa_config import read_elpa_config
    from modelyard.ensemble.policy import to_json, write_policy

    policy = integrate_config(read_elpa_config(config), method=method, created_at=stamp(utc_now()))
    write_policy(output, policy)
    if as_json:
        print_json(to_json(policy))
        return
    for name, weight in {**policy.online_weights, **policy.offline_weights}.items():
        group = "online" if name in policy.online_models else "offline"
        click.echo(f"{name:<28} {group:<8} weight {weight:.4f}  score {policy.scores[name]:.6g}")
    for entry in policy.excluded:
        click.echo(f"{entry.name:<28} excluded: {entry.reason} in {entry.rows} rows")
    for warning in policy.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{policy.method.name} ({policy.method.reason}): {output}")
