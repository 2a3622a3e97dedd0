"""`modelyard certify`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, print_json, yard_option
from modelyard.cli.progress import counting_bars

if TYPE_CHECKING:
    from modelyard.evaluation.interview import Told
    from modelyard.evidence.certify import Certified, Provenance
    from modelyard.evidence.comparison import Comparison
    from modelyard.results.engines import Reply
    from modelyard.runs.yard import Yard

#: Exit statuses beside 0, which is a pass.
_STATUS = {"pass": 0, "fail": 4, "inconclusive": 5}
_INTERRUPTED = 130
#: Without a terminal a line is shown each time so many answers more are there, of all.
_SHOWN_PARTS = 10
_PICTURE_CHARS = 41


@click.command(name="certify")
@click.argument("file", type=click.Path(path_type=Path), default=Path("yard.yaml"))
@click.option("--candidate", required=True, metavar="NAME", help="The model that shall prove itself.")
@click.option("--baseline", required=True, metavar="NAME", help="The model that it is compared with.")
@click.option(
    "--pack", type=click.Path(path_type=Path), required=True, metavar="FILE.jsonl",
    help="The frozen pack: one item a line; without splits all of it is `certify`.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(("certify", "report")), default="certify", show_default=True,
    help="The part of the pack; every opening is recorded and counted.",
)  # fmt: skip
@click.option("--non-inferiority", is_flag=True, help="Show that it is not worse by --margin or more.")
@click.option("--margin", type=click.FloatRange(0, 1, min_open=True), help="With --non-inferiority.")
@click.option(
    "--alpha", type=click.FloatRange(0, 0.5, min_open=True, max_open=True), default=0.05, show_default=True,
    help="The chance that a candidate passes that should not; one-sided.",
)  # fmt: skip
@click.option(
    "--iteration", type=click.IntRange(min=1), metavar="K",
    help="The how-manieth repair of this candidate it is: alpha is shared out over all of them.",
)  # fmt: skip
@click.option("--sequential", is_flag=True, help="End as soon as it is shown, at the cost of some power.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True,
              help="How often each item is asked.")  # fmt: skip
@click.option(
    "--losses-allowed", type=click.IntRange(min=0), metavar="N",
    help="Items that the baseline passes and the candidate may fail. [default: any number]",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True,
    help="Of the order of asking; another one is another comparison, and another look.",
)  # fmt: skip
@click.option(
    "--truncated", type=click.Choice(("fail", "score")), default="fail", show_default=True,
    help="Whether an answer that has all the tokens that it may have is a failure or is scored.",
)  # fmt: skip
@click.option(
    "--training-data", type=click.Path(path_type=Path, exists=True), multiple=True, metavar="FILE",
    help="What the candidate was trained on: JSON lines or text, or a folder of such; may be repeated.",
)  # fmt: skip
@click.option("--run", "run_id", metavar="RUN",
              help="The run that made the candidate; its inputs count as training data, too.")  # fmt: skip
@click.option(
    "--overlap", type=click.Choice(("record", "refuse")), default="record", show_default=True,
    help="What to do where items stand in the training data.",
)  # fmt: skip
@click.option("--retire-after", type=click.IntRange(min=1), default=20, show_default=True, metavar="LOOKS",
              help="Looks at the split after which it is retired.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Tell what would be asked; nothing is sent or opened.")
@yard_option
@json_option
def command(file: Path, pack: Path, run_id: str | None, yard_dir: Path, as_json: bool, **told: Any) -> None:
    """Compare two models of the `pool` of FILE, a yard.yaml, on a frozen pack, and sign what that shows.

    Both answer the same items, in a random order that mixes their calls; no answer is a failure. Answers
    are kept as they come: killed at any moment, the same command goes on. The report and the answers lie
    in certificates/ID of the yard.

    Exit status: 0 pass, 4 fail, 5 inconclusive; 1 where a model cannot be asked and there is no verdict.
    """
    from modelyard.runs.yard import open_yard

    comparison = _comparison(file, pack, told)
    there = (yard_dir / "yard.json").exists()
    yard = open_yard(yard_dir, create=not told["dry_run"]) if there or not told["dry_run"] else None
    provenance = _provenance(yard, yard_dir, run_id, told)
    if told["dry_run"] or yard is None:
        _show_plan(comparison, provenance, as_json=as_json)
        return
    certified = _carry_out(yard, comparison, provenance, quiet=as_json)
    if certified.report is None:
        click.echo("stopped; the same command goes on", err=True)
        sys.exit(_INTERRUPTED)
    _show(certified, certified.report, as_json=as_json)
    sys.exit(_STATUS[certified.report["verdict"]])


def _comparison(file: Path, pack: Path, told: Mapping[str, Any]) -> Comparison:
    from modelyard.evaluation.pool import read_judge, read_pool
    from modelyard.evidence.comparison import Terms, declare_comparison
    from modelyard.evidence.design import declare
    from modelyard.lifecycle.document import read_document

    if told["non_inferiority"] != (told["margin"] is not None):
        raise click.UsageError("--non-inferiority and --margin belong together: give both or neither")
    design = declare(
        nominal_alpha=told["alpha"],
        iteration=told["iteration"],
        alternative="non_inferiority" if told["non_inferiority"] else "superiority",
        margin=told["margin"] or 0.0,
        sequential=told["sequential"],
        samples=told["samples"],
        losses_allowed=told["losses_allowed"],
        seed=told["seed"],
    )
    terms = Terms(
        design=design, split=told["split"], whole=told["truncated"] == "fail",
        retired_after=told["retire_after"],
    )  # fmt: skip
    data = read_document(file).data
    names = {"baseline": told["baseline"], "candidate": told["candidate"]}
    found = {model.name: model for model in read_pool(data, path=file, only=tuple(names.values()))}
    models = {side: found[name] for side, name in names.items()}
    return declare_comparison(pack, models, terms, read_judge(data, path=file))


def _provenance(yard: Yard | None, yard_dir: Path, run_id: str | None, told: Mapping[str, Any]) -> Provenance:
    from modelyard.evidence.certify import Provenance
    from modelyard.evidence.overlap import data_files
    from modelyard.runs.directory import open_run
    from modelyard.runs.view import find_run
    from modelyard.runs.yard import open_yard

    files = list[Path]()
    for path in told["training_data"]:
        files.extend(data_files([path]) if path.is_dir() else [path.absolute()])
    if run_id is not None:
        row = find_run(yard or open_yard(yard_dir, create=False), run_id)
        run_id, steps = row.run, open_run(Path(row.dir)).plan().steps
        files.extend(data_files(Path(step.cwd, each) for step in steps for each in step.inputs))
    return Provenance(
        run_id=run_id, training_data=tuple(dict.fromkeys(files)), refuse_overlap=told["overlap"] == "refuse"
    )


def _carry_out(yard: Yard, comparison: Comparison, provenance: Provenance, *, quiet: bool) -> Certified:
    from modelyard.core.signals import caught_signals
    from modelyard.evaluation.interview import Surroundings
    from modelyard.evidence.certify import certify

    names = [model.name for model in comparison.models.values()]
    with (
        caught_signals(insisting=_INTERRUPTED) as caught,
        _shown(names, comparison.questions, quiet=quiet) as observer,
    ):
        around = Surroundings(
            environment=dict(os.environ), stop=lambda: caught[0] if caught else "", told=observer
        )
        return certify(yard, comparison, around, provenance)


def _show_plan(comparison: Comparison, provenance: Provenance, *, as_json: bool) -> None:
    from modelyard.evidence.comparison import planned

    record = planned(comparison)
    record["training_data"] = [str(path) for path in provenance.training_data]
    if as_json:
        print_json(record)
        return
    pack, design = record["pack"], record["design"]
    click.echo(f"{record['id']}: nothing was sent")
    click.echo(
        f"  {pack['n']} items of {pack['split']}, {pack['n_critical']} critical, {pack['clusters']} "
        f"clusters; {record['questions']} questions in all"
    )
    click.echo(f"  {_claim(design)}, at {design['alpha']:.4g} one-sided, method {design['method']}")
    for share, least in record["detectable"].items():
        click.echo(
            f"  where the models differ on {100 * float(share):g} % of the items, a truth of "
            f"{least - design['margin']:+.3f} is found with a chance of 80 %"
        )


def _show(certified: Certified, report: Mapping[str, Any], *, as_json: bool) -> None:
    from modelyard.evidence.report import REPORT

    path = certified.folder / REPORT
    if as_json:
        told = {"report": str(path), "report_digest": certified.report_digest}
        print_json({**report, **told, "before": certified.before, "earlier": certified.earlier})
        return
    for line in _table(report):
        click.echo(line)
    if certified.earlier:
        click.echo(
            f"warning: these models were compared on this pack {len(certified.earlier)} times before "
            f"({certified.earlier[-1]}); the best of several verdicts proves less, see --iteration"
        )
    click.echo(f"{path}" + (" (issued before)" if certified.before else ""))


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    """The outcome for people."""
    pack, counts, effect, design = (report[name] for name in ("prompt_pack", "counts", "effect", "design"))
    low, high = effect["ci"]
    yield (
        f"{report['candidate']['name']} against {report['baseline']['name']}: {report['items_asked']} of "
        f"{pack['n']} items, look {report['look']['split_looks']} of {report['look']['retired_at']}"
    )
    ties = counts["n11"] + counts["n00"]
    yield (
        f"  wins {counts['n01']}   losses {counts['n10']}   ties {ties} "
        f"({counts['n11']} both pass, {counts['n00']} both fail)"
    )
    for side in ("baseline", "candidate"):
        missing = counts[f"missing_{side[:4]}"]
        note = f", {missing} answers missing" if missing else ""
        yield f"  {side:<10} {report['aggregate'][side]:.4f}{note}"
    level = f"{100 * effect['level']:.4g} %"
    yield f"  difference {effect['delta']:+.4f}, {level} interval {low:+.4f} to {high:+.4f}"
    yield f"  {_picture(low, effect['delta'], high, -design['margin'])}"
    yield f"  {_claim(design)}: p {report['p_value']:.4g} at {design['alpha_final']:.4g}, {effect['method']}"
    if report["e_value"] is not None:
        yield f"  e-value {report['e_value']:.4g} after {report['looks'][-1]['items']} items"
    critical = report["critical"]
    if critical["n"]:
        failed = ", ".join(critical["new_failures"]) or "none"
        yield (
            f"  critical {critical['passed']}/{critical['n']} (at least {critical['lower95']:.3f}), "
            f"new failures: {failed}"
        )
    for each in report["secondary"]:
        yield f"  {each['metric']}: {each['delta']:+.4f} on {each['n']} items, p {each['holm_p']:.4g} by Holm"
    yield f"verdict: {report['verdict']}"
    yield from (f"  - {reason}" for reason in report["reasons"])
    if report["verdict"] == "inconclusive" and report["power"]["n_needed"] is not None:
        yield f"  items needed: about {report['power']['n_needed']}"
    yield from _warnings(report)


def _warnings(report: Mapping[str, Any]) -> Iterator[str]:
    overlap = report["prompt_pack"]["overlap"]
    if overlap and (overlap["exact"] or overlap["ngram"]):
        yield (
            f"warning: {overlap['exact']} items stand in the training data, {overlap['ngram']} more share "
            "words with it"
        )
    if not report["decoding"]["same"]:
        yield "warning: the models do not decode alike; see `decoding` in the report"


def _claim(design: Mapping[str, Any]) -> str:
    if design["alternative"] == "superiority":
        return "better than the baseline"
    return f"not worse than the baseline by {design['margin']:g} or more"


def _picture(low: float, delta: float, high: float, margin: float) -> str:
    """The interval on a line, with the place that it must be right of."""
    span = max(abs(each) for each in (low, high, margin, 0.01)) * 1.1

    def place(value: float) -> int:
        return round((value + span) / (2 * span) * (_PICTURE_CHARS - 1))

    line = ["."] * _PICTURE_CHARS
    line[place(low) : place(high) + 1] = "-" * (place(high) - place(low) + 1)
    line[place(margin)] = "|"
    line[place(delta)] = "o"
    return f"{''.join(line)}  (o difference, | what it must be above)"


@contextmanager
def _shown(names: Sequence[str], total: int, *, quiet: bool) -> Iterator[Told]:
    """An observer of replies: bars on a terminal, some lines elsewhere."""
    if quiet:
        yield lambda _model, _reply: None
        return
    if not sys.stderr.isatty():
        yield _lines(total)
        return
    with counting_bars() as bars:
        tasks = {name: bars.add_task(name, total=total) for name in names}

        def observe(model: str, _reply: Reply) -> None:
            if model in tasks:
                bars.update(tasks[model], advance=1)

        yield observe


def _lines(total: int) -> Told:
    lock, asked = threading.Lock(), dict[str, int]()

    def observe(model: str, _reply: Reply) -> None:
        with lock:
            asked[model] = asked.get(model, 0) + 1
            if asked[model] % max(1, total // _SHOWN_PARTS) == 0:
                click.echo(f"{model}: {asked[model]} asked", err=True)

    return observe
