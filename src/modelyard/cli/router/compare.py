"""`modelyard router compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.curve import numbers, numbers_line
from modelyard.cli.router.options import results_option

_LAMBDAS = (0.0, 0.1, 0.3, 1.0, 3.0)


@click.command(name="compare")
@click.argument("a", metavar="A", type=click.Path(path_type=Path))
@click.argument("b", metavar="B", type=click.Path(path_type=Path))
@results_option
@click.option(
    "--draws", type=click.IntRange(min=100), default=2000, show_default=True,
    help="Samples of the prompts, for the interval.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the samples.")
@json_option
def command(a: Path, b: Path, results: tuple[Path, ...], draws: int, seed: int, as_json: bool) -> None:
    """Compare the routers A and B on the same held-out answers.

    The routers may know different models: each routes over its own. Prompts count that every model of both
    has answered, costs are relative to the dearest model of either, areas begin at the least cost at which
    both can answer, and QNC99 refers to the best single model of either.
    """
    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.comparison import paired_difference
    from modelyard.routing.measuring import held_out
    from modelyard.routing.router import Router

    routers, table = (Router.load(a), Router.load(b)), read_answer_table(results)
    measured = [held_out(one, table, also=other.names) for one, other in (routers, (routers[1], routers[0]))]
    dearest = max(float(each.spent_usd_m.max()) for each in measured)
    cheapest = max(float(each.spent_usd_m.min()) for each in measured) / dearest
    best = max(each.best_single for each in measured)
    sweeps = [each.router(dearest) for each in measured]
    told = paired_difference(sweeps[0], sweeps[1], cheapest=cheapest, draws=draws, seed=seed)
    record: dict[str, Any] = {
        "prompts": len(measured[0].examples),
        "left_out": measured[0].left_out,
        "dearest_usd": dearest,
        "cheapest": cheapest,
        "best_single": best,
        "difference": asdict(told),
    }
    for name, folder, each, sweep in zip("ab", (a, b), measured, sweeps, strict=True):
        shown = each.router(dearest, _LAMBDAS)
        costs, qualities = shown.cost_lq.mean(axis=1) * dearest, shown.quality_lq.mean(axis=1)
        record[name] = {
            "router": str(folder),
            "models": each.names,
            **numbers(sweep.curve(), cheapest, best),
            "lambdas": [
                {"lambda": weight, "quality": float(quality), "cost_usd": float(cost)}
                for weight, quality, cost in zip(_LAMBDAS, qualities, costs, strict=True)
            ],
        }
    if as_json:
        print_json(record)
    else:
        _show(record)


def _show(record: dict[str, Any]) -> None:
    click.echo(
        f"{record['prompts']} prompts, {record['left_out']} left out; the dearest model of both costs "
        f"{record['dearest_usd']:.3g} USD; areas begin at {record['cheapest']:.4g} of it"
    )
    click.echo(f"   {'area':>7} {'QNC99':>7} {'peak':>7}  router")
    for name in "ab":
        row = record[name]
        click.echo(f"{name.upper()}  {numbers_line(row)}  {row['router']}, {len(row['models'])} models")
    click.echo(f"\n{'lambda':<7} {'A right':>8} {'A USD':>10} {'B right':>8} {'B USD':>10}")
    for one, other in zip(record["a"]["lambdas"], record["b"]["lambdas"], strict=True):
        click.echo(
            f"{one['lambda']:<7g} {one['quality']:>8.4f} {one['cost_usd']:>10.3g} "
            f"{other['quality']:>8.4f} {other['cost_usd']:>10.3g}"
        )
    told = record["difference"]
    click.echo(
        f"\narea of B - A: {told['area']:+.4f}, 95 % interval {told['low']:+.4f} to {told['high']:+.4f} "
        f"({told['draws']:,} samples of the prompts, seed {told['seed']})"
    )
