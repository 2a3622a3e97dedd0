"""Drivers: the processes that work on one study, each with trials of its own.

A driver holds the lock of a numbered file for as long as it lives. The trials of one whose lock is free
have nobody to look after them, and the next who asks takes them over. Locks of another yard's drivers cannot
be seen from here: of those the study's storage tells when they were last heard of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import TuneError
from modelyard.core.locks import held

_MOST = 1000
#: How often a driver lets itself be heard of, and after what silence it counts as gone.
BEAT_S, SILENCE_S = 30.0, 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """The drivers of one study in one yard."""

    folder: Path
    # The yard's id: tells them from those of other yards that share the study's database.
    yard: str

    @contextmanager
    def join(self) -> Iterator[str]:
        """Be a driver; its name. Raises `TuneError` where a thousand are at work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for number in range(_MOST):
                try:
                    stack.enter_context(held(self._lock(number)))
                except BlockingIOError:
                    continue
                yield f"{self.yard}:{number}"
                return
        raise TuneError(f"{self.folder}: {_MOST} drivers work on this study; end some")

    def is_gone(self, driver: str) -> bool:
        """Whether a driver of this yard has ended. Of those of other yards nothing is known: False."""
        yard, _, number = driver.partition(":")
        if yard != self.yard:
            return False
        try:
            with held(self._lock(int(number))):
                return True
        except BlockingIOError:
            return False

    def is_foreign(self, driver: str) -> bool:
        """Whether a driver is of another yard."""
        return driver.partition(":")[0] != self.yard

    def lives(self, driver: str, silent_s: float | None) -> bool:
        """Whether a driver is at work, as far as can be seen; one of another yard if it was heard of lately.

        `silent_s` is how long it was not heard of; None: never.
        """
        if self.is_foreign(driver):
            return silent_s is not None and silent_s < SILENCE_S
        return not self.is_gone(driver)

    def at_work(self) -> bool:
        """Whether any driver of this yard is alive."""
        numbers = sorted(path.stem for path in self.folder.glob("*.lock"))
        return not all(self.is_gone(f"{self.yard}:{number}") for number in numbers)

    def _lock(self, number: int) -> Path:
        return self.folder / f"{number}.lock"
