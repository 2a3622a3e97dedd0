"""Drivers: the processes that work on one study, each with trials of its own.

A driver holds the lock of a numbered file for as long as it lives. The trials of one whose lock is free
have nobody to look after them, and the next who asks takes them over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import TuneError
from modelyard.core.locks import held

_MOST = 1000


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

    def at_work(self) -> bool:
        """Whether any driver of this yard is alive."""
        numbers = sorted(path.stem for path in self.folder.glob("*.lock"))
        return not all(self.is_gone(f"{self.yard}:{number}") for number in numbers)

    def _lock(self, number: int) -> Path:
        return self.folder / f"{number}.lock"
