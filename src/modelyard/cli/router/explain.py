"""`modelyard router explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import request_of, request_options, router_option

if TYPE_CHECKING:
    from modelyard.routing.decision import Request
    from modelyard.routing.explanation import Explanation, Neighbour, Standing

#: How many models are listed, and how many of them with their errors on near prompts.
_LISTED, _COMPARED = 20, 4
_LETTERS = 60


@click.command(name="explain")
@click.argument("prompt")
@router_option
@click.option(
    "--neighbours", type=click.IntRange(min=0), default=5, show_default=True,
    help="How many of the nearest fit prompts are shown.",
)  # fmt: skip
@click.option(
    "--results", type=click.Path(path_type=Path), multiple=True, metavar="DIR",
    help="A folder whose prompts.parquet has the fit prompts' texts, which a router does not keep.",
)  # fmt: skip
@request_options
@json_option
def command(
    prompt: str, folder: Path, neighbours: int, results: tuple[Path, ...], as_json: bool, **asked: Any
) -> None:
    """Tell why PROMPT goes to a model.

    Shown are its cluster, what was weighed of every model, how many answers of it lie in that cluster, who
    wins by how much, and the nearest prompts of the fit with the errors made on them.
    """
    from modelyard.routing.answer_table import read_prompts
    from modelyard.routing.router import Router

    router = Router.load(folder)
    request = request_of(asked)
    told = router.explain(prompt, neighbours, request)
    texts = read_prompts(results) if results else {}
    known = {near.example: texts[near.example] for near in told.neighbours if near.example in texts}
    router.check_texts(known)
    if as_json:
        near = [{**asdict(each), "text": known.get(each.example)} for each in told.neighbours]
        print_json({**asdict(told), "neighbours": near})
        return
    size = int((router.pool.clusters_n == told.decision.cluster).sum())
    click.echo(
        f"cluster {told.decision.cluster} of {len(router.clusters)}, {size} of {len(router.pool.examples)} "
        f"fit prompts\n{_verdict(told, request)}\n"
    )
    _standings(told.standings)
    if told.neighbours:
        _neighbours(told, known)


def _verdict(told: Explanation, request: Request) -> str:
    """Who wins and why."""
    from modelyard.routing.explanation import meets

    chosen = told.decision.chosen
    line = f"{chosen}: {told.decision.reason}"
    second = next((r for r in told.standings if r.score is not None and r.name != chosen), None)
    if second is None:
        return f"{line}; no other model could be chosen"
    if meets(told.decision, request):
        return f"{line}; it costs {told.decision.cost_usd:.3g} USD, {second.name} {second.cost_usd:.3g} USD"
    return f"{line}; its score is {told.decision.score:.4f}, that of {second.name} {second.score:.4f}"


def _standings(rows: Sequence[Standing]) -> None:
    width = max(len("model"), *(len(row.name) for row in rows[:_LISTED]))
    click.echo(
        f"{'model':<{width}} {'score':>8} {'error':>7}  {'90 % interval':<14} {'USD':>10} {'answers':>8}"
    )
    for row in rows[:_LISTED]:
        score = "-" if row.score is None else f"{row.score:.4f}"
        line = (
            f"{row.name:<{width}} {score:>8} {row.predicted_error:>7.3f}  {row.low:.3f} to {row.high:.3f} "
            f"{row.cost_usd:>10.3g} {row.answers:>8}"
        )
        click.echo(f"{line}  {row.excluded}" if row.excluded else line)
    if len(rows) > _LISTED:
        click.echo(f"... and {len(rows) - _LISTED} more; --json has all")


def _neighbours(told: Explanation, texts: Mapping[str, str]) -> None:
    """The near prompts with the errors of the models that stand highest."""
    names = [row.name for row in told.standings[:_COMPARED]]
    width = max(len("nearest"), *(len(near.example) for near in told.neighbours))
    heads = "".join(f" {name:>{max(5, len(name))}}" for name in names)
    click.echo(f"\n{'nearest':<{width}} {'similar':>8}{heads}   (errors; - was not asked)")
    for near in told.neighbours:
        line = f"{near.example:<{width}} {near.similarity:>8.3f}" + "".join(
            f" {_error(near, name):>{max(5, len(name))}}" for name in names
        )
        click.echo(f"{line}  {_one_line(texts[near.example])}" if near.example in texts else line)


def _error(near: Neighbour, name: str) -> str:
    return f"{near.errors[name]:.3g}" if name in near.errors else "-"


def _one_line(text: str) -> str:
    whole = " ".join(text.split())
    return whole if len(whole) <= _LETTERS else f"{whole[: _LETTERS - 1]}…"
