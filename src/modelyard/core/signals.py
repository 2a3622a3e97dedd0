"""SIGINT and SIGTERM as a question that long work asks itself, so that it ends at a place of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def caught_signals(*, insisting: int | None = None) -> Iterator[list[str]]:
    """Collect the names of the signals that come, in order; outside the main thread none are caught.

    Args:
        insisting: With an exit status, the second signal ends the process at once with that: for work that
            may wait long for what is under way, and loses nothing by a sudden end.
    """
    caught: list[str] = []

    def on_signal(number: int, _frame: object) -> None:
        if caught and insisting is not None:
            os._exit(insisting)
        caught.append(signal.Signals(number).name)

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
