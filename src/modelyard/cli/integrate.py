"""`modelyard integrate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.core.clock import stamp, utc_now

if TYPE_CHECKING:
    from modelyard.ensemble.policies.policy import Policy

METHODS = (
    "auto", "committee", "boa", "mlpoly", "adahedge", "fixed_share", "nnls", "greedy", "inverse_score",
    "uniform",
)  # fmt: skip


class _Beta(click.ParamType[float | str]):
    """A memory above 0 and at most 1, or "auto", which is None."""

    name = "number|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "auto":
            return "auto"
        try:
            number = float(str(value))
        except ValueError:
            number = 0.0
        if not 0.0 < number <= 1.0:
            self.fail(f"{value!r} is not a memory; use a number above 0 and at most 1, or auto", param, ctx)
        return number


@click.command(name="integrate")
@click.argument("path", metavar="[YARD.YAML]", required=False, type=click.Path(path_type=Path))
@click.option("--config", "config", type=click.Path(path_type=Path), help="ELPA integrate file (JSON).")
@click.option(
    "--output", "output", required=True, type=click.Path(path_type=Path), help="Where the policy goes."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="auto: committee where every model has truth and forecasts on the same rows, else inverse_score.",
)
@click.option(
    "--beta",
    type=_Beta(),
    default=None,
    help="The memory; auto: chosen on blocks of the validation rows. [default: the file's]",
)
@yard_option
@json_option
def command(
    path: Path | None, config: Path | None, output: Path, *, yard_dir: Path, as_json: bool, **how: Any
) -> None:
    """Build an ELPA policy from validation errors.

    Of YARD.YAML, from the tables of its newest run (`modelyard up`); the run's own policy stays. Of
    --config, from the errors that an ELPA file names. Models with an error that is not a finite number
    are excluded with the reason.
    """
    given = path or config
    if given is None or (path and config):
        raise click.UsageError("give a YARD.YAML, or --config with an ELPA file")
    if output.resolve() == given.resolve() or (output.exists() and given.exists() and output.samefile(given)):
        raise click.BadParameter(f"is {given}, which it would replace", param_hint="--output")
    # pandas and scipy load here, not before
    from modelyard.ensemble.policies.policy import to_json, write_policy

    policy = _of_yard(given, yard_dir, **how) if path else _of_config(given, **how)
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


def _of_config(config: Path, method: str, beta: float | str | None) -> Policy:
    from modelyard.ensemble.learning.config_policy import integrate_config
    from modelyard.ensemble.learning.elpa_config import read_elpa_config

    read = read_elpa_config(config)
    if beta is not None:
        read = replace(read, beta=None if isinstance(beta, str) else beta)
    return integrate_config(read, method=method, created_at=stamp(utc_now()))


def _of_yard(path: Path, yard_dir: Path, method: str, beta: float | str | None) -> Policy:
    from modelyard.cli.backtest import run_places
    from modelyard.core.digests import digest_path
    from modelyard.ensemble.__main__ import read_spec
    from modelyard.ensemble.learning.integrate import integrate_tables
    from modelyard.results.tables import read_predictions, read_truth

    spec = read_spec(run_places(path, yard_dir).spec("integrate"))
    settings = spec.settings if method == "auto" else replace(spec.settings, method=method)
    if beta is not None:
        settings = replace(settings, beta=None if isinstance(beta, str) else beta)
    policy = integrate_tables(
        read_predictions(spec.predictions),
        read_truth(spec.truth),
        settings=settings,
        groups=spec.groups,
        excluded=spec.excluded,
        created_at=stamp(utc_now()),
    )
    inputs = {"predictions": digest_path(spec.predictions), "truth": digest_path(spec.truth)}
    return replace(policy, digests={**policy.digests, "inputs": inputs, "models": spec.models})
