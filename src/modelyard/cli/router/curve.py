"""`modelyard router curve`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import results_option
from modelyard.core.errors import RoutingError

if TYPE_CHECKING:
    from modelyard.routing.answer_table import AnswerTable
    from modelyard.routing.router import Router

_SHARE = 0.99


@click.command(name="curve")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@results_option
@json_option
def command(folder: Path, results: tuple[Path, ...], as_json: bool) -> None:
    """Measure a router on answers to prompts that it was not fitted on.

    Area is the mean quality over relative costs from the cheapest model's to the dearest's; QNC99 the
    relative cost at which 99 % of the best single model's quality is reached; peak the best quality. The
    ZeroRouter mixes models without looking at prompts; the oracle knows who will be right.
    """
    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.router import Router

    record = _measured(Router.load(folder), read_answer_table(results))
    if as_json:
        print_json(record)
        return
    click.echo(
        f"{record['prompts']} prompts, {record['left_out']} left out; best {record['best_single']:.4f}"
    )
    click.echo(f"{'':<12} {'area':>7} {'QNC99':>7} {'peak':>7}")
    for name, row in record["curves"].items():
        reached = "never" if row["qnc99"] is None else f"{row['qnc99']:.4f}"
        click.echo(f"{name:<12} {row['area']:>7.4f} {reached:>7} {row['peak']:>7.4f}")


def _measured(router: Router, table: AnswerTable) -> dict[str, Any]:
    """On the prompts that every model of the router has answered."""
    import numpy as np

    from modelyard.routing.deferral import Field

    lost = [name for name in router.names if name not in table.answers.models]
    if lost:
        raise RoutingError(
            f"the held-out results have no answer of {', '.join(lost)}; add them, or remove the model"
        )
    seen = set(table.answers.examples) & set(router.pool.examples)
    if seen:
        raise RoutingError(
            f"the router was fitted on {min(seen)!r} and {len(seen) - 1} more of these prompts; give others"
        )
    answers = table.answers.of_models([table.answers.models.index(name) for name in router.names])
    told = np.flatnonzero(~np.isnan(answers.errors_mn).any(axis=0))
    if not told.size:
        raise RoutingError(
            "no prompt of the held-out results was answered by every model; add the missing rows"
        )
    answers, cost = answers.to_prompts(told), answers.mean_cost_usd()
    if cost.max() <= 0:
        raise RoutingError("every model costs 0 USD, so that quality over cost is no question; give prices")
    field = Field(quality_mq=1.0 - answers.errors_mn, cost_m=cost / cost.max())
    shares = np.bincount(router.pool.clusters_n, minlength=len(router.clusters)) / len(router.pool.examples)
    curves = {
        "router": field.curve(router.predicted_errors([table.prompts[i] for i in told])),
        "zero_router": field.zero_router(np.array([psi_k @ shares for psi_k in router.models.psi_mk])),
        "oracle": field.oracle(),
    }
    rows = {}
    for name, curve in curves.items():
        qnc = curve.cost_of(_SHARE * field.best_single)
        rows[name] = {
            "area": curve.area(field.cheapest),
            "qnc99": None if math.isnan(qnc) else qnc,
            "peak": curve.peak,
        }
    return {
        "prompts": len(told),
        "left_out": len(table.prompts) - len(told),
        "best_single": field.best_single,
        "curves": rows,
    }
