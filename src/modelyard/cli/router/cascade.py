"""`modelyard router cascade`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json
from modelyard.cli.router.options import results_option, router_option
from modelyard.core.errors import RoutingError

if TYPE_CHECKING:
    from modelyard.routing.answers import Answers, Floats
    from modelyard.routing.cascade import Cascade

_PATH = click.Path(path_type=Path)
_LAMBDAS = (1.0, 0.3, 0.1, 0.03, 0.0)


@click.command(name="cascade")
@click.option("--first", required=True, metavar="MODEL", help="Answers first.")
@click.option("--then", required=True, metavar="MODEL", help="Is asked where that answer is not trusted.")
@results_option
@click.option("--held-out", type=_PATH, multiple=True, metavar="DIR", help="Results to measure it on.")
@click.option("--output", type=_PATH, default=Path("cascade.json"), show_default=True, help="The cascade.")
@router_option
@json_option
def command(
    folder: Path,
    results: tuple[Path, ...],
    held_out: tuple[Path, ...],
    output: Path,
    as_json: bool,
    **told: str,
) -> None:
    """Calibrate a cascade on results with confidences, and measure it on held-out ones.

    The first model's confidence (evaluate with `options: {logprobs: true}`) becomes a probability of being
    wrong; the second is asked where its predicted error is less, by more than its price is worth.
    """
    from modelyard.routing.answer_table import read_answer_table, read_confidences
    from modelyard.routing.cascade import Calibration, Cascade

    fitted = read_answer_table(results).answers
    first, then = _rows(fitted, told, results)
    costs = fitted.mean_cost_usd()
    cascade = Cascade(
        **told,
        calibration=Calibration.fit(read_confidences(results, fitted)[first], fitted.errors_mn[first]),
        first_usd=float(costs[first]),
        then_usd=float(costs[then]),
        then_error=_mean(fitted.errors_mn[then]),
    )
    cascade.save(output)
    record: dict[str, Any] = {"cascade": str(output), "calibration": _calibration(cascade)}
    if held_out:
        record["held_out"] = _measured(cascade, folder, held_out)
    if as_json:
        print_json(record)
        return
    for name, value in record["calibration"].items():
        click.echo(f"{name:<28} {value:.4g}")
    if held_out:
        _show(record["held_out"])


def _rows(answers: Answers, told: dict[str, str], results: tuple[Path, ...]) -> list[int]:
    lost = [name for name in told.values() if name not in answers.models]
    if lost:
        raise RoutingError(f"{results[0]}: has no answer of {', '.join(lost)}; give results of both models")
    return [answers.models.index(told[place]) for place in ("first", "then")]


def _mean(errors_n: Floats) -> float:
    import numpy as np

    return float(np.nanmean(errors_n))


def _calibration(cascade: Cascade) -> dict[str, float]:
    """What a confidence of so much means."""
    wrong = {f"wrong at confidence {c:g}": float(cascade.calibration.wrong(c)) for c in (0.5, 0.9, 0.99)}
    return {"answers": cascade.calibration.answers, **wrong}


def _measured(cascade: Cascade, folder: Path, held_out: tuple[Path, ...]) -> dict[str, Any]:
    import numpy as np

    from modelyard.routing.answer_table import read_answer_table, read_confidences
    from modelyard.routing.cascade import Played, cascade_curve
    from modelyard.routing.router import Router

    router, table = Router.load(folder), read_answer_table(held_out)
    seen = set(table.answers.examples) & set(router.pool.examples)
    if seen:
        raise RoutingError(
            f"the router was fitted on {min(seen)!r}, which is no held-out prompt; give others"
        )
    first, then = _rows(table.answers, {"first": cascade.first, "then": cascade.then}, held_out)
    errors_mn = table.answers.errors_mn
    told = np.flatnonzero(~np.isnan(errors_mn[[first, then]]).any(axis=0))
    if not told.size:
        raise RoutingError(f"{held_out[0]}: no prompt was answered by both models; add the missing rows")
    predicted = router.predicted([table.prompts[i] for i in told])
    played = Played(
        first_error_q=errors_mn[first, told],
        then_error_q=errors_mn[then, told],
        confidence_q=read_confidences(held_out, table.answers)[first, told],
        predicted_q=predicted.errors_mq[router.models.row(cascade.then)],
    )
    points = [(weight, cascade_curve(cascade, played, (weight,)), cascade.then_usd) for weight in _LAMBDAS]
    return {
        "prompts": len(told),
        "without_confidence": int(np.isnan(played.confidence_q).sum()),
        "first": 1.0 - float(played.first_error_q.mean()),
        "then": 1.0 - float(played.then_error_q.mean()),
        "peak": cascade_curve(cascade, played).peak,
        "lambdas": [
            {"lambda": weight, "quality": float(curve.quality_p[0]), "cost_usd": float(curve.cost_p[0]) * usd}
            for weight, curve, usd in points
        ],
    }


def _show(record: dict[str, Any]) -> None:
    click.echo(
        f"{record['prompts']} prompts, {record['without_confidence']} without a confidence; right alone: "
        f"first {record['first']:.4f}, then {record['then']:.4f}; peak of the cascade {record['peak']:.4f}"
    )
    click.echo(f"{'lambda':<7} {'right':>7} {'USD':>10}")
    for row in record["lambdas"]:
        click.echo(f"{row['lambda']:<7g} {row['quality']:>7.4f} {row['cost_usd']:>10.3g}")
