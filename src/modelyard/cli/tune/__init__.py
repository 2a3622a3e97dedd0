"""`modelyard tune`: a group of commands; `tune FILE.yaml` is short for `tune run FILE.yaml`."""

from __future__ import annotations

import click

from modelyard.cli.lazy import LazyGroup

_COMMANDS = {
    "run": "Search as a tune.yaml says, or take a search up where it was left.",
    "status": "Where a study stands: its trials, those that run, the best.",
    "best": "The best configuration, for a person, a machine or a command line.",
    "history": "Every trial of a study.",
    "plot": "Draw a study: history, learning curves, importance and more.",
    "report": "One HTML page of a study.",
    "export": "The trials as a table, or into MLflow or W&B.",
    "ask": "Have a language model write a tune.yaml for a wish in plain words.",
}


class _Tune(LazyGroup):
    """Takes a first word that ends in .yml or .yaml as the file of `run`, and `--schema` as its option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and (args[0].endswith((".yml", ".yaml")) or args[0].startswith("--schema")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(name="tune", cls=_Tune, package="modelyard.cli.tune", known=_COMMANDS)
def command() -> None:
    """Search the hyperparameters of any training command.

    `modelyard tune FILE.yaml` is short for `modelyard tune run FILE.yaml`, and so is `modelyard tune
    --schema train.schema.json --settings automl_settings.json --command ...` for TAO's files.
    """
