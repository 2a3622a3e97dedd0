"""`modelyard router curve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import plot_option, results_option

if TYPE_CHECKING:
    from modelyard.routing.deferral import Curve
    from modelyard.routing.measuring import HeldOut

_SHARE = 0.99


@click.command(name="curve")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@results_option
@plot_option
@json_option
def command(folder: Path, results: tuple[Path, ...], plot: Path | None, as_json: bool) -> None:
    """Measure a router on answers to prompts that it was not fitted on.

    Area is the mean quality over relative costs from the cheapest model's to the dearest's; QNC99 the
    relative cost at which 99 % of the best single model's quality is reached; peak the best quality. The
    ZeroRouter mixes models without looking at prompts; the oracle knows who will be right.
    """
    from modelyard.routing.answer_table import read_answer_table
    from modelyard.routing.measuring import held_out
    from modelyard.routing.pictures import check_picture, curve_picture, write_picture
    from modelyard.routing.router import Router

    if plot:
        check_picture(plot)
    measured = held_out(Router.load(folder), read_answer_table(results))
    if plot:
        write_picture(curve_picture(measured), plot)
    record = _record(measured)
    if as_json:
        print_json(record)
        return
    click.echo(
        f"{record['prompts']} prompts, {record['left_out']} left out; best {record['best_single']:.4f}"
    )
    click.echo(f"{'':<12} {'area':>7} {'QNC99':>7} {'peak':>7}")
    for name, row in record["curves"].items():
        click.echo(f"{name:<12} {numbers_line(row)}")


def _record(measured: HeldOut) -> dict[str, Any]:
    cost_m = measured.spent_usd_m
    dearest = float(cost_m.max())
    curves = {
        "router": measured.router(dearest).curve(),
        "zero_router": measured.zero_router(dearest).curve(),
        "oracle": measured.oracle(dearest).curve(),
    }
    cheapest, best = float(cost_m.min()) / dearest, measured.best_single
    return {
        "prompts": len(measured.examples),
        "left_out": measured.left_out,
        "best_single": best,
        "curves": {name: numbers(curve, cheapest, best) for name, curve in curves.items()},
    }


def numbers(curve: Curve, cheapest: float, best_single: float) -> dict[str, float | None]:
    """Area, QNC99 and peak of a curve; None for a quality that is never reached."""
    import math

    qnc = curve.cost_of(_SHARE * best_single)
    return {"area": curve.area(cheapest), "qnc99": None if math.isnan(qnc) else qnc, "peak": curve.peak}


def numbers_line(row: dict[str, Any]) -> str:
    """The same as columns of a table."""
    reached = "never" if row["qnc99"] is None else f"{row['qnc99']:.4f}"
    return f"{row['area']:>7.4f} {reached:>7} {row['peak']:>7.4f}"
