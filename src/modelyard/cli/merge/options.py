"""Options that the commands which write a merged checkpoint share, and how they show it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import print_json

if TYPE_CHECKING:
    from modelyard.merging.engine import MergeOptions, MergeResult, Progress
    from modelyard.merging.planning import MergePlan
    from modelyard.merging.recipe import Recipe

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", re.IGNORECASE)


class _Bytes(click.ParamType[int]):
    """A number of bytes such as 5GB, 500M or 2GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        number = int(float(match[1]) * _UNITS[(match[2] or "").upper()]) if match else 0
        if number < 1:
            self.fail(f"{value!r} is not a size; write a number and a unit, such as 5GB or 500MB", param, ctx)
        return number


def merge_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that merges, handed over as `options`."""

    @wraps(function)
    def with_options(**told: Any) -> None:
        from modelyard.merging.engine import MergeOptions

        options = MergeOptions(
            threads=told.pop("threads") or _cores(),
            shard_bytes=told.pop("shard_size"),
            **{name: told.pop(name) for name in ("seed", "resume", "overwrite", "allow_not_finite")},
        )
        function(options=options, **told)

    decorators = (
        click.option("--threads", type=click.IntRange(min=1), help="Threads. [default: the cores]"),
        click.option(
            "--shard-size",
            type=_Bytes(),
            default="5GB",
            show_default=True,
            help="Largest file of the output.",
        ),
        click.option("--seed", default=0, show_default=True, help="Of methods that drop at random."),
        click.option("--resume", is_flag=True, help="Go on with what a killed run of the same merge left."),
        click.option("--overwrite", is_flag=True, help="Replace OUT once the new checkpoint is whole."),
        click.option(
            "--allow-not-finite", is_flag=True, help="Accept inputs that hold NaN or infinite values."
        ),
    )
    decorated: Callable[..., None] = with_options
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def merge_progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """An observer that shows a bar on a terminal, and a line every tenth of the way elsewhere."""
    if quiet:
        yield lambda _item: None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar() as observer:
            yield observer
    else:
        yield _lines()


def _lines() -> Callable[[Progress], None]:
    told = [0]

    def observe(item: Progress) -> None:
        tenth = 10 * item.bytes // max(1, item.of_bytes)
        if tenth > told[0]:
            told[0] = tenth
            with suppress(OSError):  # a reader that went away does not end the merge
                click.echo(f"{10 * tenth:>3} %  {item.tensors} of {item.of_tensors} tensors", err=True)

    return observe


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda item: bars.update(
            task, total=item.of_bytes, completed=item.bytes, description=item.name[-40:]
        )


def carry_out(
    recipes: Sequence[Recipe], out: Path, options: MergeOptions, *, file: str, as_json: bool
) -> None:
    """Merge, showing how far it is, and tell what was made."""
    from modelyard.merging.chain import run_chain

    with merge_progress(quiet=as_json) as observe:
        plan, result = run_chain(recipes, out, options, file=file, folder=Path(), observe=observe)
    if as_json:
        print_json(result_record(plan, result))
        return
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    resumed = f", {result.resumed} of them from before" if result.resumed else ""
    click.echo(f"{plan.method.name}: {result.tensors} tensors{resumed}, {result.bytes / 1e9:.3f} GB: {out}")


def result_record(plan: MergePlan, result: MergeResult) -> dict[str, Any]:
    """What `--json` prints of a merge."""
    return {
        "out": str(result.out),
        "method": plan.method.name,
        "tensors": result.tensors,
        "bytes": result.bytes,
        "resumed": result.resumed,
        "warnings": list(result.warnings),
        "parents": result.parents,
    }


def plan_record(plan: MergePlan, options: MergeOptions) -> dict[str, Any]:
    """What a dry run prints with `--json`."""
    return {
        "method": plan.method.name,
        "models": [str(model.ref) for model in plan.models],
        "tensors": len(plan.tasks),
        "output_bytes": plan.output_bytes,
        "read_bytes": plan.read_bytes,
        "shards": max(1, -(-plan.output_bytes // options.shard_bytes)),
        "warnings": list(plan.warnings),
    }
