"""`modelyard router cost`."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import plot_option, results_option

_LAMBDAS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


@click.command(name="cost")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@results_option
@click.option(
    "--requests-per-day", "requests", type=click.FloatRange(min=0, min_open=True), required=True,
    help="How many requests come in a day.",
)  # fmt: skip
@click.option(
    "--lambda", "lambdas", type=click.FloatRange(min=0), multiple=True, metavar="X",
    help="A weight of cost; may be repeated. [default: 0, and 0.03 to 10]",
)  # fmt: skip
@plot_option
@json_option
def command(
    folder: Path, results: tuple[Path, ...], requests: float, lambdas: tuple[float, ...], plot: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Tell what a router would cost a day, by the weight of cost, beside each model alone.

    Costs and right answers are those of held-out answers; a day's requests are taken to be like them.
    """
    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.measuring import held_out
    from modelyard.routing.pictures import Spending, check_picture, cost_picture, write_picture
    from modelyard.routing.router import Router

    if plot:
        check_picture(plot)
    measured = held_out(Router.load(folder), read_answer_table(results))
    weights = tuple(sorted(set(lambdas or _LAMBDAS)))
    sweep = measured.router(1.0, weights)
    spent = Spending(
        lambdas=weights,
        usd_l=requests * sweep.cost_lq.mean(axis=1),
        quality_l=sweep.quality_lq.mean(axis=1),
        names=measured.names,
        usd_m=requests * measured.spent_usd_m,
        quality_m=measured.quality_mq.mean(axis=1),
    )
    if plot:
        write_picture(cost_picture(spent, requests=requests), plot)
    router = zip(weights, spent.usd_l.tolist(), spent.quality_l.tolist(), strict=True)
    alone = zip(spent.names, spent.usd_m.tolist(), spent.quality_m.tolist(), strict=True)
    by_weight = [{"lambda": weight, "usd_a_day": usd, "quality": right} for weight, usd, right in router]
    by_model = [{"model": name, "usd_a_day": usd, "quality": right} for name, usd, right in alone]
    if as_json:
        count = len(measured.examples)
        print_json({"requests": requests, "prompts": count, "router": by_weight, "models": by_model})
        return
    width = max(len("model"), *(len(name) for name in spent.names))
    for title, key, rows in (("lambda", "lambda", by_weight), ("model", "model", by_model)):
        click.echo(f"{title:<{width}} {'USD a day':>12} {'right':>7}")
        for row in sorted(rows, key=lambda row: -float(row["usd_a_day"])) if key == "model" else rows:
            name = f"{row[key]:g}" if key == "lambda" else row[key]
            click.echo(f"{name:<{width}} {row['usd_a_day']:>12,.2f} {row['quality']:>7.4f}")
        if key == "lambda":
            click.echo()
