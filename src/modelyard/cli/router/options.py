"""Options that the routing commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from modelyard.routing.decision import Request

F = TypeVar("F", bound=Callable[..., Any])

_REQUEST = (
    click.option(
        "--lambda", "lambda_", type=float, help="How much error the dearest model's price is worth."
    ),
    click.option("--lambda-usd", type=float, help="How much error one USD is worth."),
    click.option("--budget-usd", type=float, help="The most that the answer may cost."),
    click.option(
        "--quality", type=float, help="The least predicted quality, 0 to 1; the cheapest such model."
    ),
    click.option("--allow", multiple=True, metavar="MODEL", help="Only this model; may be repeated."),
    click.option("--deny", multiple=True, metavar="MODEL", help="Never this model; may be repeated."),
    click.option("--context-tokens", type=int, help="Only models known to have room for so many tokens."),
    click.option("--tools", is_flag=True, help="Only models known to use tools."),
    click.option("--vision", is_flag=True, help="Only models known to read images."),
    click.option(
        "--group", type=click.Choice(("online", "offline")), help="Only models known to be of this group."
    ),
    click.option("--latency-s", type=float, help="Only models known to answer within this, in the mean."),
    click.option("--latency-p95-s", type=float, help="The same for 95 of 100 answers."),
    click.option(
        "--previous", metavar="MODEL",
        help="Who answered before in the conversation; stays unless another is better by more than --margin.",
    ),
    click.option("--margin", type=float, default=0.0, show_default=True, help="In units of the score."),
    click.option(
        "--explore", "epsilon", type=float, help="The chance that a model with few answers is tried, 0 to 1."
    ),
    click.option(
        "--new-below", "few", type=click.IntRange(min=1), default=200, show_default=True,
        help="Models with fewer answers are few enough to be tried.",
    ),
    click.option("--request-id", help="Of this request, for --explore: the same id has the same lot."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the lots."),
)  # fmt: skip


def results_option(function: F) -> F:
    """`--results DIR`, which may be given several times."""
    return click.option(
        "--results", "results", type=click.Path(path_type=Path), required=True, multiple=True, metavar="DIR",
        help="A folder with results.parquet and prompts.parquet, as `evaluate` and `import` leave them.",
    )(function)  # fmt: skip


def router_option(function: F) -> F:
    """`--router DIR`, handed over as `folder`."""
    return click.option(
        "--router", "folder", type=click.Path(path_type=Path), default=Path("router"), show_default=True,
        help="The folder of the router.",
    )(function)  # fmt: skip


def plot_option(function: F) -> F:
    """`--plot FILE`."""
    return click.option(
        "--plot",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Also a picture: FILE.svg or FILE.png.",
    )(function)


def request_options(function: F) -> F:
    """What a request may ask for, handed over by the names that `request_of` takes."""
    for option in reversed(_REQUEST):
        function = option(function)
    return function


def request_of(asked: Mapping[str, Any]) -> Request:
    """The request out of the values of `request_options`."""
    from modelyard.routing.decision import Request
    from modelyard.routing.exploration import Exploration

    given = dict(asked)
    epsilon, few, request_id, seed = (given.pop(name) for name in ("epsilon", "few", "request_id", "seed"))
    if epsilon is not None:
        given["explore"] = Exploration(epsilon=epsilon, answers=few, request_id=request_id or "", seed=seed)
    return Request(**given)
