"""`modelyard evaluate`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import backend_option, execution_options, json_option, print_json, yard_option
from modelyard.cli.progress import counting_bars

if TYPE_CHECKING:
    from modelyard.evaluation.evaluate import Evaluated, Evaluation
    from modelyard.evaluation.interview import Told
    from modelyard.results.engines import Reply
    from modelyard.runs.yard import Yard

_PARTIAL, _INTERRUPTED = 3, 130
#: Without a terminal a line is shown each time so many questions more have been asked, of all.
_SHOWN_PARTS = 10


@click.command(name="evaluate")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "set_path", type=click.Path(path_type=Path), required=True, metavar="FILE.jsonl",
    help="The frozen set: one example a line.",
)  # fmt: skip
@click.option("--model", "only", multiple=True, metavar="NAME", help="Only this model; may be repeated.")
@click.option(
    "--engine", default="openai", show_default=True,
    help="Of models that name none: openai, transformers, command, replay, or another installed one.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(("fit", "certify", "report")), default="fit", show_default=True,
    help="The part of the set; every opening is recorded.",
)  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True,
              help="How often each question is asked.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="Only so many examples, drawn at random.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of that draw.")
@click.option(
    "--parallel", type=click.IntRange(min=1), help="Questions under way a model. [default: the model's]"
)
@click.option(
    "--resume/--fresh", default=True, show_default=True,
    help="Ask only what has no answer yet, or forget the answers first and pay for all again.",
)  # fmt: skip
@click.option(
    "--shards", type=click.IntRange(min=1), help="Share the questions of each model out over so many jobs."
)
@backend_option
@click.option("--output", type=click.Path(path_type=Path), help="[default: evaluations/ID in the yard]")
@click.option(
    "--dry-run", is_flag=True, help="Tell what would be asked, and the first request; nothing is sent."
)
@yard_option
@json_option
def command(
    file: Path, set_path: Path, only: tuple[str, ...], yard_dir: Path, as_json: bool, **told: Any
) -> None:
    """Ask every model in the `pool` of FILE, a yard.yaml, the questions of a frozen set.

    Answers are kept as they come, by what was asked of whom: killed at any moment, the same command
    goes on, and what was answered is not paid for again. A question without an answer counts as wrong.
    """
    from modelyard.evaluation.evaluate import EvaluationOptions, prepare
    from modelyard.evaluation.pool import read_judge, read_pool
    from modelyard.lifecycle.document import read_document
    from modelyard.runs.yard import open_yard

    data = read_document(file).data
    models = read_pool(data, path=file, engine=told["engine"], only=only)
    if told["parallel"]:
        models = tuple(model.with_parallel(told["parallel"]) for model in models)
    options = EvaluationOptions(
        split=told["split"], samples=told["samples"], limit=told["limit"], seed=told["seed"],
        fresh=not told["resume"],
    )  # fmt: skip
    evaluation = prepare(set_path, models, options, read_judge(data, path=file, engine=told["engine"]))
    yard = open_yard(yard_dir, create=not told["dry_run"]) if _there(yard_dir, told) else None
    if told["dry_run"] or yard is None:
        _show_plan(yard, evaluation, as_json=as_json)
        return
    output = told["output"] or yard.root / "evaluations" / evaluation.id
    evaluated = _carry_out(yard, evaluation, output, told, quiet=as_json)
    _show(evaluated, as_json=as_json)


def _there(yard_dir: Path, told: dict[str, Any]) -> bool:
    return not told["dry_run"] or (yard_dir / "yard.json").exists()


def _carry_out(
    yard: Yard, evaluation: Evaluation, output: Path, told: dict[str, Any], *, quiet: bool
) -> Evaluated:
    from modelyard.core.signals import caught_signals
    from modelyard.evaluation.evaluate import evaluate
    from modelyard.evaluation.interview import Surroundings

    if told["shards"]:
        from modelyard.evaluation.shards import ask_in_shards
        from modelyard.runs.execution import Outcome

        execution = execution_options(told["shards"], backend=told["backend"])
        if ask_in_shards(yard, evaluation, told["shards"], execution) is Outcome.CANCELLED:
            click.echo("stopped; the same command goes on", err=True)
            sys.exit(_INTERRUPTED)
        evaluation = evaluation.resumed()
    with caught_signals(insisting=_INTERRUPTED) as caught, _shown(evaluation, quiet=quiet) as observer:
        around = Surroundings(
            environment=dict(os.environ),
            stop=lambda: caught[0] if caught else "",
            told=observer,
            asks=not told["shards"],
        )
        return evaluate(yard, evaluation, output, around)


def _show_plan(yard: Yard | None, evaluation: Evaluation, *, as_json: bool) -> None:
    from modelyard.evaluation.evaluate import planned

    record = planned(yard, evaluation, dict(os.environ))
    if as_json:
        print_json(record)
        return
    click.echo(f"{record['id']}: {record['examples']} examples of {record['split']}; nothing was sent")
    for model in record["models"]:
        click.echo(
            f"{model['name']:<24} {model['questions']:>7} questions, {model['stored']} answered before, "
            f"{model['questions'] - model['stored']} to ask"
        )
        click.echo(f"  first: {model['first']}")


def _show(evaluated: Evaluated, *, as_json: bool) -> None:
    if as_json:
        record = {**asdict(evaluated), "whole": evaluated.whole}
        print_json(record)
    else:
        _table(evaluated)
    if evaluated.stopped:
        click.echo("stopped; the same command goes on, without --fresh if that was given", err=True)
        sys.exit(_INTERRUPTED)
    if not evaluated.whole:
        sys.exit(_PARTIAL if evaluated.digests else 1)


def _table(evaluated: Evaluated) -> None:
    click.echo(f"{'model':<24} {'score':>7} {'asked':>7} {'no answer':>10} {'USD':>10}")
    for each in evaluated.models:
        if each.why or each.mean_score is None:
            click.echo(f"{each.model:<24} left out: {each.why}")
            continue
        cost = "unknown" if each.cost_usd is None else f"{each.cost_usd:.4g}"
        asked = each.questions - each.stored
        click.echo(f"{each.model:<24} {each.mean_score:>7.3f} {asked:>7} {each.unanswered:>10} {cost:>10}")
    for each in evaluated.models:
        if each.in_doubt:
            click.echo(
                f"{each.model}: {each.in_doubt} questions were under way when an earlier run died; a server "
                "that does not know Idempotency-Key may charge them twice"
            )
    if evaluated.judge_usd != 0:
        cost = "unknown" if evaluated.judge_usd is None else f"{evaluated.judge_usd:.4g} USD"
        click.echo(f"the judge's verdicts cost {cost}")
    if evaluated.split != "fit":
        click.echo(f"look {evaluated.looks} at {evaluated.split} of this set")
    if evaluated.digests:
        click.echo(f"{evaluated.output}")


@contextmanager
def _shown(evaluation: Evaluation, *, quiet: bool) -> Iterator[Told]:
    """An observer of replies: bars on a terminal, some lines elsewhere."""
    names = [model.name for model in evaluation.models]
    total = evaluation.questions
    if quiet:
        yield lambda _model, _reply: None
    elif sys.stderr.isatty():
        with _bars(names, total) as observer:
            yield observer
    else:
        yield _lines(total)


def _lines(total: int) -> Told:
    lock, asked, failed = threading.Lock(), dict[str, int](), dict[str, int]()

    def observe(model: str, reply: Reply) -> None:
        with lock:
            asked[model] = asked.get(model, 0) + 1
            failed[model] = failed.get(model, 0) + (reply.text is None)
            if asked[model] % max(1, total // _SHOWN_PARTS) == 0:
                note = f", {failed[model]} without an answer" if failed[model] else ""
                click.echo(f"{model}: {asked[model]} asked{note}", err=True)

    return observe


@contextmanager
def _bars(names: Sequence[str], total: int) -> Iterator[Told]:
    from rich.progress import TextColumn

    with counting_bars(TextColumn("{task.fields[failed]}")) as bars:
        tasks = {name: bars.add_task(name, total=total, failed="") for name in names}
        failed = dict.fromkeys(names, 0)

        def observe(model: str, reply: Reply) -> None:
            failed[model] += reply.text is None
            note = f"{failed[model]} without an answer" if failed[model] else ""
            bars.update(tasks[model], advance=1, failed=note)

        yield observe
