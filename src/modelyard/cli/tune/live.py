"""The live table of a search on a terminal: what runs, how far it is, and the best so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelyard.cli.tune.studies import shown_assignments, trial_line
from modelyard.tuning.search import Hooks

if TYPE_CHECKING:
    from modelyard.tuning.search import Search
    from modelyard.tuning.trial import Trial


@contextmanager
def live_table(search: Search) -> Iterator[Hooks]:
    """Hooks that redraw a table below the lines of ended trials; it is gone at the end."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console,
    )  # fmt: skip
    table = _Table(search, bar)
    with Live(table, console=console, refresh_per_second=4, transient=True):
        yield Hooks(opened=table.opened, proposed=table.proposed, reported=table.reported, ended=table.ended)


class _Table:
    """What is drawn; rich asks for it at each refresh."""

    def __init__(self, search: Search, bar: Progress) -> None:
        self._search, self._bar = search, bar
        self._task = bar.add_task("trials", total=search.limits.trials)
        self._running: dict[int, tuple[str, str, str]] = {}  # number -> step, value, assignments

    def opened(self, ended: int) -> None:
        self._bar.update(self._task, completed=ended)

    def proposed(self, trial: Trial) -> None:
        told = shown_assignments(self._search.space.assignments(trial.point))
        self._running[trial.number] = ("", "", told)

    def reported(self, number: int, step: int, value: float) -> None:
        _, _, told = self._running.get(number, ("", "", ""))
        self._running[number] = (str(step), f"{value:.6g}", told)

    def ended(self, trial: Trial, best: Trial | None) -> None:
        self._running.pop(trial.number, None)
        is_best = best is not None and best.number == trial.number
        told = self._search.space.assignments(trial.point)
        style = "green" if is_best else "red" if trial.state.value == "FAILED" else None
        self._bar.console.print(trial_line(trial, told, best=is_best), style=style, highlight=False)
        shown = "trials" if best is None or best.value is None else f"best {best.value:.6g}"
        self._bar.update(self._task, advance=1, description=shown)

    def __rich__(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("trial", "step", self._search.objectives[0].metric, "configuration"):
            table.add_column(column, no_wrap=True)
        for number, row in sorted(self._running.items()):
            table.add_row(str(number), *row)
        return Group(table, self._bar)
