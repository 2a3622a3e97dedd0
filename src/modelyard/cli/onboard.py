"""`modelyard onboard`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.router.options import router_option
from modelyard.core.errors import EvaluationError, RoutingError

if TYPE_CHECKING:
    from modelyard.evaluation.pool import PoolModel

_PATH = click.Path(path_type=Path)
_INTERRUPTED = 130
_SOURCES = ("results", "endpoint", "checkpoint", "pool")


@click.command(name="onboard")
@click.argument("name")
@click.option("--results", type=_PATH, multiple=True, metavar="DIR",
              help="Answers that there are: folders with results.parquet and prompts.parquet.")  # fmt: skip
@click.option("--endpoint", metavar="URL", help="A server with OpenAI's interface, to be asked.")
@click.option("--checkpoint", type=_PATH, metavar="DIR", help="A checkpoint on this machine, to be asked.")
@click.option("--pool", type=_PATH, metavar="FILE", help="A yard.yaml whose pool has NAME, to be asked.")
@click.option("--set", "set_path", type=_PATH, metavar="FILE.jsonl", help="The frozen set to ask from.")
@click.option("--validation", type=click.IntRange(min=1), default=400, show_default=True,
              help="How many questions are asked.")  # fmt: skip
@click.option("--model", help="What the server calls it. [default: NAME]")
@click.option("--api-key", metavar="VARIABLE", help="The environment variable with the server's key.")
@click.option("--usd-per-request", type=float, help="The price of an answer.")
@click.option("--usd-per-million", type=(float, float), metavar="PROMPT COMPLETION",
              help="The prices of a million tokens.")  # fmt: skip
@router_option
@yard_option
@json_option
def command(name: str, folder: Path, yard_dir: Path, as_json: bool, **told: Any) -> None:
    """Add the model NAME to a router from a few of its answers; nothing else in the router changes.

    It is asked some questions of a frozen set, by --endpoint, --checkpoint or --pool, or known by --results.
    """
    from modelyard.lifecycle.onboarding import onboard
    from modelyard.routing.router import Router

    given = [source for source in _SOURCES if told[source]]
    if len(given) != 1:
        raise click.UsageError(f"give one of --{', --'.join(_SOURCES)}, not {len(given)}")
    router = Router.load(folder)
    if name in router.names:  # before anything is paid
        raise RoutingError(f"{name!r} is in the router already; remove it first, or give another name")
    folders = told["results"] or (_asked(name, yard_dir, told),)
    onboarded = onboard(router, name, folders)
    onboarded.router.save(folder)
    if as_json:
        names = onboarded.router.names
        print_json({"router": str(folder), "model": name, "answers": onboarded.answers, "models": names})
        return
    click.echo(f"{folder}: {name} from {onboarded.answers} answers; now {', '.join(onboarded.router.names)}")


def _asked(name: str, yard_dir: Path, told: dict[str, Any]) -> Path:
    """Where the answers to the questions lie."""
    from modelyard.core.signals import caught_signals
    from modelyard.evaluation.interview import Surroundings
    from modelyard.lifecycle.onboarding import ask_newcomer
    from modelyard.runs.yard import open_yard

    if told["set_path"] is None:
        raise click.UsageError("--set names the questions to ask; give a frozen set")
    model = _model(name, told)
    if not model.priced and "endpoint" not in model.entry:
        raise RoutingError(f"the price of {name!r} is not declared, and unknown is not free; give it")
    yard = open_yard(yard_dir, create=True)
    with caught_signals(insisting=_INTERRUPTED) as caught:
        around = Surroundings(environment=dict(os.environ), stop=lambda: caught[0] if caught else "")
        try:
            return ask_newcomer(yard, model, told["set_path"], told["validation"], around)
        except EvaluationError:
            if caught:
                raise click.Abort from None
            raise


def _model(name: str, told: dict[str, Any]) -> PoolModel:
    from modelyard.evaluation.pool import read_entry, read_pool
    from modelyard.lifecycle.document import read_document

    if told["pool"]:
        (model,) = read_pool(read_document(told["pool"]).data, path=told["pool"], only=[name])
        return model
    price = {"request_usd": told["usd_per_request"]}
    if told["usd_per_million"]:
        price |= dict(
            zip(
                ("prompt_usd_per_million", "completion_usd_per_million"), told["usd_per_million"], strict=True
            )
        )
    entry: dict[str, Any] = {
        "name": name,
        "price": {key: usd for key, usd in price.items() if usd is not None},
    }
    if told["endpoint"]:
        entry |= {"endpoint": told["endpoint"], "model": told["model"] or name, "api_key": told["api_key"]}
    else:
        entry |= {"engine": "transformers", "checkpoint": str(told["checkpoint"])}
    return read_entry(entry, place="onboard", folder=Path.cwd())
