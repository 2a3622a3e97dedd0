"""`modelyard tune export`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.tune.studies import opened, storage_option

#: The options of the exporters, by the names of their fields.
_OPTIONS = {
    "tracking_uri": (
        "--tracking-uri",
        "URI",
        "mlflow: its server or database. [default: MLFLOW_TRACKING_URI]",
    ),
    "experiment": ("--experiment", "NAME", "mlflow: MLFLOW_EXPERIMENT_NAME, or `modelyard`, without it."),
    "project": ("--project", "NAME", "wandb: WANDB_PROJECT, or `modelyard`, without it."),
    "mode": (
        "--mode",
        "MODE",
        "wandb: offline, to be uploaded with `wandb sync`, or online. [default: offline]",
    ),
    "dir": (
        "--dir",
        "FOLDER",
        "wandb: where its folder `wandb` is or is made. [default: WANDB_DIR, or here]",
    ),
}


def _exporter_options(function: Callable[..., None]) -> Callable[..., None]:
    """The exporters' options; those given are handed over as `options`."""

    @wraps(function)
    def with_options(**given: Any) -> None:
        options = {name: given.pop(name) for name in _OPTIONS}
        function(options={name: value for name, value in options.items() if value is not None}, **given)

    wrapped: Callable[..., None] = with_options
    for name, (flag, metavar, told) in reversed(_OPTIONS.items()):
        wrapped = click.option(flag, name, metavar=metavar, help=told)(wrapped)
    return wrapped


@click.command(name="export")
@click.argument("study")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="FILE.csv, FILE.parquet or FILE.json."
)
@click.option("--to", metavar="NAME", help="mlflow, wandb, or another exporter that is installed.")
@_exporter_options
@yard_option
@storage_option
@json_option
def command(study: str, out: Path | None, to: str | None, *, options: dict[str, str], **shown: Any) -> None:
    """Write the trials of STUDY, a name or its beginning, as a table or to MLflow or W&B.

    A table has one row a trial; a JSON file has the whole curves too, the others the last value of each.
    MLflow gets a run for the study and nested in it one for every trial, W&B a run for every trial, each with
    the whole curve. Trials that run are left for a later export, which adds only what is new.
    """
    if (out is None) == (to is None):
        raise click.UsageError("give either --out FILE or --to NAME")
    if out is not None and options:
        raise click.UsageError(f"--{next(iter(options)).replace('_', '-')} goes with --to NAME")
    if out is not None:
        _to_file(study, out, **shown)
    elif to is not None:
        _to_tool(study, to, options, **shown)


def _to_file(study: str, out: Path, *, yard_dir: Path, url: str | None, as_json: bool) -> None:
    from modelyard.tuning.reporting.trial_table import write_table

    view = opened(yard_dir, study, url)
    write_table(view, out)
    if as_json:
        print_json({"study": view.name, "file": str(out), "trials": len(view.trials)})
        return
    click.echo(f"{out}: {len(view.trials)} trials")


def _to_tool(
    study: str, to: str, options: dict[str, str], *, yard_dir: Path, url: str | None, as_json: bool
) -> None:
    from modelyard.core.errors import TuneError
    from modelyard.core.locks import held
    from modelyard.runs.view import find_run
    from modelyard.runs.yard import open_yard
    from modelyard.tuning.exporters import make_exporter

    exporter = make_exporter(to, options)
    view = opened(yard_dir, study, url)
    lock = Path(find_run(open_yard(yard_dir, create=False), view.name).dir) / "export.lock"
    try:
        with held(lock):
            done = exporter.export(view)
    except BlockingIOError as error:
        raise TuneError(f"{lock}: another process exports this study; wait until it has ended") from error
    if as_json:
        print_json({
            "study": view.name, "to": to, "place": done.place, "added": list(done.added),
            "known": list(done.known), "running": list(done.running),
        })  # fmt: skip
        return
    click.echo(
        f"{done.place}: {len(done.added)} trials added, {len(done.known)} there already, "
        f"{len(done.running)} still running"
    )
