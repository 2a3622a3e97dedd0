"""`modelyard backtest`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from modelyard.cli.options import execution_options, json_option, print_json, yard_option
from modelyard.core.errors import PolicyError
from modelyard.core.files import write_whole
from modelyard.lifecycle.planning import Places
from modelyard.lifecycle.up import prepare_up


@click.command(name="backtest")
@click.argument("path", metavar="YARD.YAML", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="NAMES", default="",
    help="Other libraries to run beside the policy: river, sktime or both, with a comma.",
)  # fmt: skip
@click.option(
    "--report", "page", required=True, type=click.Path(path_type=Path), help="Where the page goes (HTML)."
)
@click.option(
    "--policy", "policy_file", type=click.Path(path_type=Path), help="Another policy than the run's own."
)
@yard_option
@json_option
def command(
    path: Path, against: str, page: Path, policy_file: Path | None, yard_dir: Path, as_json: bool
) -> None:
    """Hold a policy against hindsight, and against other libraries' ensembles, on rolling origins.

    The tables are those of the newest run of YARD.YAML (`modelyard up`). The policy forecasts from every
    origin after its validation and learns with the delay of each lead; beside it stand the uniform mean,
    the best single expert, the best convex mixture and the best switching sequence in hindsight. The run
    is not changed.
    """
    from modelyard.ensemble.__main__ import write_backtest  # pandas loads here, not before
    from modelyard.ensemble.measuring.backtest import backtest_policy
    from modelyard.ensemble.policies.policy import read_policy
    from modelyard.ensemble.report.headline import headline, sentence, shown_name
    from modelyard.ensemble.report.inputs import ReportInputs
    from modelyard.ensemble.report.page import build_report
    from modelyard.results.tables import read_predictions, read_truth

    places = run_places(path, yard_dir)
    used = policy_file or places.policy
    names = tuple(name.strip() for name in against.split(",") if name.strip())
    result = backtest_policy(
        read_policy(used), read_predictions(places.predictions), read_truth(places.truth), against=names
    )
    with tempfile.TemporaryDirectory() as folder:
        write_backtest(Path(folder), result)
        title = f"Backtest of {path.name}"
        write_whole(page, build_report(ReportInputs(policy=used, backtest=Path(folder), title=title)))
    if as_json:
        print_json(result.summary)
        return
    ranking = headline(result.summary)
    for row in ranking:
        if row["kind"] != "expert" and row["mae"] is not None:
            click.echo(f"{shown_name(row):<48} mean absolute error {row['mae']:.6g}")
    click.echo(f"{sentence(ranking)}\n{page}")


def run_places(path: Path, yard_dir: Path) -> Places:
    """Where the newest run of a yard.yaml has left its tables.

    Raises:
        PolicyError: There is no run that came so far.
    """
    prepared = prepare_up(path, yard_dir.absolute() / "runs", execution_options())
    places = Places(run_dir=prepared.declaration.scope.run_dir)
    if not (places.predictions.exists() and places.truth.exists()):
        raise PolicyError(f"{places.predictions}: there is no such table; run `modelyard up {path}` first")
    return places
