"""`modelyard heads serve`."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.heads.loading import machine_options
from modelyard.core.errors import HeadsError

if TYPE_CHECKING:
    from modelyard.heads.serving.server import ServerSettings


@click.command(name="serve")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("heads", type=click.Path(path_type=Path), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; nothing is encrypted.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one."
)
@click.option("--model-name", default="", help="What clients call it. [default: BASE's folder]")
@click.option(
    "--max-waiting", "most_waiting", type=click.IntRange(min=0), default=16, show_default=True,
    help="Requests that may wait; more are turned away with 503.",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=256, show_default=True,
    help="Of an answer, where a request says nothing.",
)  # fmt: skip
@click.option("--lookup", type=click.IntRange(min=0), default=0, help="Places of a pass for prompt lookup.")
@click.option("--api-key", default="", metavar="VARIABLE", help="Holds the key that requests must bear.")
@machine_options
def command(base: Path, heads: Path | None, host: str, port: int, **told: Any) -> None:
    """Serve BASE with its HEADS by OpenAI's interface, one generation at a time.

    /v1/chat/completions and /v1/completions, streamed or not, /v1/models and /health. The address is printed
    when it listens; SIGTERM ends it. Without HEADS the same loop decodes plainly.
    """
    try:
        from modelyard.heads.serving.server import Surroundings, address_of, bound, make_app, serve
    except ModuleNotFoundError as error:
        raise HeadsError(f"heads serve needs {error.name}; pip install 'modelyard[serve]'") from error
    from modelyard.heads.decoding.decoder import open_decoder

    settings = _settings(base, told, os.environ)
    decoder = open_decoder(base, heads, dtype=told["dtype"], device=told["device"])
    surroundings = Surroundings(clock=time.time, below=secrets.randbelow)
    # the decoder's thread has the other one
    tokenizer = deepcopy(decoder.base.tokenizer)
    app = make_app(decoder, tokenizer, settings, surroundings)
    with bound(host, port) as listening:
        click.echo(f"{settings.model} at {address_of(listening)}")
        serve(app, listening)


def _settings(base: Path, told: Mapping[str, Any], environment: Mapping[str, str]) -> ServerSettings:
    from modelyard.heads.serving.server import ServerSettings

    variable = told["api_key"]
    if variable and not environment.get(variable):
        raise HeadsError(
            f"--api-key {variable}: the environment has no such variable; set it, or leave it out"
        )
    return ServerSettings(
        model=told["model_name"] or base.resolve().name, most_waiting=told["most_waiting"],
        max_tokens=told["max_tokens"], lookup=told["lookup"],
        api_key=environment[variable] if variable else "",
    )  # fmt: skip
