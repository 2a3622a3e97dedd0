"""`modelyard heads train`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.heads.loading import machine_options
from modelyard.cli.options import json_option, print_json
from modelyard.cli.progress import counting_bars

if TYPE_CHECKING:
    from modelyard.heads.learning.making import Order, Progress
    from modelyard.heads.learning.training import Trained

#: Standard error has a line every so often where it is no terminal.
_LINE_EVERY_S = 10.0
_SHOWN_RANKS = (1, 3, 5, 10)


@click.command(name="train")
@click.argument("base", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder of the heads.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help='Texts, one object a line: {"text"}, {"prompt", "completion"} or {"messages"}.',
)
@click.option(
    "--self-distill",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Let BASE write requests and answers itself, until the answers have so many tokens.",
)
@click.option(
    "--topics",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help='How those requests begin: {"opening"} or {"system"}, one object a line. [default: built in]',
)
@click.option(
    "--answer-temperature",
    type=click.FloatRange(min=0),
    default=0.3,
    show_default=True,
    help="Of those answers; 0 takes the likeliest token.",
)
@click.option(
    "--conversations",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="How many of those are written at a time.",
)
@click.option("--heads", type=click.IntRange(1, 64), default=4, show_default=True, help="How many heads.")
@click.option(
    "--layers", type=click.IntRange(min=1), default=1, show_default=True, help="Residual blocks in each."
)
@click.option(
    "--projection",
    type=click.Choice(("shared", "own")),
    default="shared",
    show_default=True,
    help="Use the rows of BASE's output projection, or train some for each head.",
)
@click.option(
    "--shortlist",
    type=click.IntRange(min=2),
    default=8192,
    show_default=True,
    help="Tokens that can be drafted: the most frequent ones of the texts.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=4, show_default=True, help="Times over the texts."
)
@click.option(
    "--lr",
    "learning_rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Highest learning rate.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=512, show_default=True, help="Positions of one pass."
)
@click.option(
    "--accumulate", type=click.IntRange(min=1), default=1, show_default=True, help="Passes to one step."
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Half epochs without a better held-out loss before it stops.",
)
@click.option(
    "--hold-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the texts that is not trained on.",
)
@click.option(
    "--longest",
    "most_tokens",
    type=click.IntRange(min=4),
    default=1024,
    show_default=True,
    help="Tokens of a text; what comes after is cut off.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all that is drawn."
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where texts and hidden states are kept; other heads on them share it. [default: OUTPUT.work]",
)
@click.option(
    "--soft",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Weight of BASE's own distribution as what is to be foretold; the rest is the text's token.",
)
@click.option(
    "--lora",
    is_flag=True,
    help="Then train BASE with them, by adapters that are merged into a new base (Medusa-2).",
)
@click.option(
    "--lora-rank", type=click.IntRange(min=1), default=16, show_default=True, help="Of those adapters."
)
@click.option(
    "--new-base",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where that base goes, on which alone the heads work. [default: OUTPUT.base]",
)
@click.option("--dry-run", is_flag=True, help="Check everything and tell what would be trained.")
@machine_options
@json_option
def command(base: Path, dry_run: bool, as_json: bool, **told: Any) -> None:
    """Train heads on BASE, a frozen model, from texts or from what it writes itself.

    BASE runs once over the texts; the heads learn from its hidden states on the disk. Killed or stopped, it
    goes on with the same command. The folder has held_out.jsonl, texts for `heads tree --calibrate`.
    """
    from modelyard.heads.learning.making import make_heads, plan_heads

    order = _order(base, told)
    if dry_run:
        plan = {**asdict(plan_heads(order)), "work": str(order.work_folder)}
        _show(plan, as_json=as_json)
        return
    with _shown(quiet=as_json) as observe:
        trained = make_heads(order, clock=time.monotonic, observe=observe)
    _tell(order, trained, as_json=as_json)


def _order(base: Path, told: dict[str, Any]) -> Order:
    from modelyard.heads.learning.joint import JointSettings
    from modelyard.heads.learning.making import Order
    from modelyard.heads.learning.self_distillation import DistilSettings
    from modelyard.heads.learning.training import TrainingSettings

    wanted, batch = told.pop("self_distill"), told.pop("conversations")
    temperature = told.pop("answer_temperature")
    seed, lora, rank = told["seed"], told.pop("lora"), told.pop("lora_rank")
    writing = wanted and DistilSettings(
        answer_tokens=wanted, batch=batch, answer_temperature=temperature, seed=seed
    )
    places = {
        name: told.pop(name)
        for name in ("output", "data", "topics", "work", "dtype", "device", "new_base", "most_tokens")
    }
    if places["new_base"] and not lora:
        raise click.UsageError("--new-base is for --lora; without it BASE stays as it is")
    joint = JointSettings(rank=rank, alpha=2 * rank, seed=seed) if lora else None
    return Order(
        base=base, self_distillation=writing, joint=joint,
        training=TrainingSettings(**told), **places,
    )  # fmt: skip


def _show(record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    for name, value in record.items():
        shown = "; ".join(value) if isinstance(value, tuple | list) else value
        click.echo(f"{name.replace('_', ' '):<16} {shown}")


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """An observer that shows each stage: a bar on a terminal, lines elsewhere, both on standard error."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with counting_bars() as bars:
            tasks: dict[str, Any] = {}

            def observe(item: Progress) -> None:
                if item.stage not in tasks:
                    tasks[item.stage] = bars.add_task(item.stage, total=item.total)
                shown = f"{item.stage}, {item.note}" if item.note else item.stage
                bars.update(tasks[item.stage], completed=item.done, description=shown)

            yield observe
    else:
        yield _lines()


def _lines() -> Callable[[Progress], None]:
    told: dict[str, float] = {}

    def observe(item: Progress) -> None:
        now = time.monotonic()
        if item.done == item.total or now - told.get(item.stage, -_LINE_EVERY_S) >= _LINE_EVERY_S:
            told[item.stage] = now
            note = f"  {item.note}" if item.note else ""
            click.echo(f"{item.stage:<9} {item.done} of {item.total}{note}", err=True)

    return observe


def _tell(order: Order, trained: Trained, *, as_json: bool) -> None:
    facts = trained.facts
    if as_json:
        print_json({"output": str(order.output), "before": trained.before, **facts})
        return
    click.echo("head  " + "".join(f"  top-{rank:<3}" for rank in _SHOWN_RANKS) + " (of held-out tokens)")
    for number, row in enumerate(facts["accuracy"], start=1):
        click.echo(f"{number:<6}" + "".join(f"{row[rank - 1]:>7.1%} " for rank in _SHOWN_RANKS))
    covered = f"{facts['shortlist_coverage']:.1%}"
    click.echo(f"{facts['tokens']} tokens, {covered} of them can be drafted, {facts['steps']} steps")
    if order.joint is not None:
        kept = f"{facts['same_as_teacher']:.1%} of its likeliest tokens are the old base's"
        click.echo(f"{order.new_base_folder}: divergence {facts['divergence']:.5f}, {kept}")
    click.echo(f"{order.output}" + (" (before)" if trained.before else ""))
