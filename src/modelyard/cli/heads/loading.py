"""What the commands on heads that decode have in common: their options, and how they show that they work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click

from modelyard.cli.progress import counting_bars
from modelyard.heads.config import DTYPE_NAMES


def machine_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--dtype`, `--device` and `--threads`; the threads are set before the command runs."""

    @wraps(function)
    def with_machine(threads: int | None, **rest: Any) -> None:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        function(**rest)

    for option in (
        click.option("--threads", type=click.IntRange(min=1), help="Of torch. [default: its own]"),
        click.option("--device", default="cpu", show_default=True, help="Of torch."),
        click.option(
            "--dtype", type=click.Choice(DTYPE_NAMES), default="float32",
            show_default=True, help="What BASE computes in.",
        ),
    ):  # fmt: skip
        with_machine = option(with_machine)
    return with_machine


@contextmanager
def counted(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """An observer of so many done of so many: a bar on a terminal, a line at the end elsewhere."""
    if quiet:
        yield lambda *_: None
    elif sys.stderr.isatty():
        with counting_bars() as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
    else:
        yield lambda done, total: click.echo(f"{what} {done} of {total}", err=True) if done == total else None
