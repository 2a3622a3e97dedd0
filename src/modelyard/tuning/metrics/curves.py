"""The metrics that a training job reports, as they come in: bytes of a log, readings, a curve, an outcome.

Only whole lines are read. What a progress bar draws over counts as one line: of what it said of one step
the last counts. Curves keep every value; a value that is no finite number is kept as what it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from modelyard.tuning.metrics.rules import STEP_NAMES, MetricRules, Reading
from modelyard.tuning.metrics.text import LineGrammar
from modelyard.tuning.trial import Direction, Objective

__all__ = ["STEP_NAMES", "Curve", "LineReader", "MetricRules", "NoValue", "Reading", "WholeLines", "outcome"]

#: A line that is longer is not read.
LINE_BYTES = 1 << 20
_ENDS = re.compile(rb"([\r\n\x08])")
_SHOWN, _SHOWN_LETTERS = 3, 160


class WholeLines:
    """Cuts a stream of bytes into lines; whatever the chunks, the lines are the same."""

    def __init__(self, *, longest_bytes: int = LINE_BYTES) -> None:
        self._longest = longest_bytes
        self._rest = bytearray()
        self._skips = False  # the unfinished line is too long

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The lines that end in this chunk, each with its end: a newline, a return or a backspace.

        A line that is too long is given as an empty one.
        """
        *ended, rest = _ENDS.split(chunk)
        for line, end in zip(ended[::2], ended[1::2], strict=True):
            yield self._whole(line), end
        self._rest += rest
        if len(self._rest) > self._longest:
            self._rest.clear()
            self._skips = True

    def finish(self) -> bytes:
        """What came after the last end; the next chunk begins anew."""
        return self._whole(b"")

    def _whole(self, line: bytes) -> bytes:
        whole = bytes(self._rest) + line if self._rest else line
        skipped = self._skips or len(whole) > self._longest
        self._rest.clear()
        self._skips = False
        return b"" if skipped else whole


class LineReader:
    """Reads metrics off printed lines. For one stream, in one thread."""

    def __init__(self, rules: MetricRules) -> None:
        self._grammar = LineGrammar(rules)
        self._lines = WholeLines()
        # What the line being drawn over has said so far.
        self._drawn: dict[str, Reading] = {}
        self._passed_over: list[str] = []

    @property
    def passed_over(self) -> tuple[str, ...]:
        """The first lines that may mean a wanted metric, and were not read for being in doubt."""
        return tuple(self._passed_over)

    def feed(self, chunk: bytes) -> list[Reading]:
        """The readings that this chunk completes."""
        readings: list[Reading] = []
        for line, end in self._lines.feed(chunk):
            if line:
                readings += self._draw(line)
            if end == b"\n":
                readings += self._settle()
        return readings

    def finish(self, *, ended_well: bool) -> list[Reading]:
        """What is left at the end of the stream.

        Args:
            ended_well: Whether the program ended by itself; otherwise a last line without its end is taken
                for half of one, and not read.
        """
        rest = self._lines.finish()
        readings = self._draw(rest) if ended_well and rest else []
        return readings + self._settle()

    def _draw(self, line: bytes) -> list[Reading]:
        """Take in what a line, or one state of a bar, tells; the readings that a later step has closed."""
        text = line.decode("utf-8", "replace")
        told = self._grammar.read(text)
        if (
            told.doubtful
            and len(self._passed_over) < _SHOWN
            and (shown := _shown(text)) not in self._passed_over
        ):
            self._passed_over.append(shown)
        closed = []
        for reading in told.readings:
            held = self._drawn.pop(reading.name, None)
            if held is not None and None not in (held.step, reading.step) and held.step != reading.step:
                closed.append(held)
            self._drawn[reading.name] = reading
        return closed

    def _settle(self) -> list[Reading]:
        settled = list(self._drawn.values())
        self._drawn.clear()
        return settled


class Curve:
    """Every value of one metric by its step."""

    def __init__(self, *, start: int = 0) -> None:
        """Begin an empty curve; values without a step come after `start`."""
        self._start = self._largest = start
        self._points: dict[int, float] = {}
        self._rank: int | None = None
        self._diverged: tuple[int, float] | None = None

    def add(self, reading: Reading) -> int | None:
        """Take in a value; the step at which it stands.

        A value without a step stands after the last. A step that is told again has the later value. Of
        several spellings, or places, the nearest makes the curve; None: a nearer one made it already.
        """
        if self._rank is not None and reading.rank > self._rank:
            return None
        if self._rank is not None and reading.rank < self._rank:
            self._points.clear()
            self._largest, self._diverged = self._start, None
        self._rank = reading.rank
        step = self._largest + 1 if reading.step is None else reading.step
        self._largest = max(self._largest, step)
        self._points[step] = reading.value
        first = self._diverged is None or step < self._diverged[0]
        if first and not math.isfinite(reading.value):
            self._diverged = (step, reading.value)
        return step

    def __len__(self) -> int:
        return len(self._points)

    @property
    def points(self) -> Mapping[int, float]:
        """Every value by its step, in the order of steps."""
        return MappingProxyType(dict(sorted(self._points.items())))

    @property
    def finite(self) -> dict[int, float]:
        """The values that are finite numbers."""
        return {step: value for step, value in self.points.items() if math.isfinite(value)}

    @property
    def last(self) -> float | None:
        """The value at the largest step; None if there is none."""
        return self._points[max(self._points)] if self._points else None

    @property
    def diverged(self) -> int | None:
        """The first step at which the value was nan or infinite, even if it was told again later."""
        return None if self._diverged is None else self._diverged[0]

    @property
    def diverged_value(self) -> float:
        """What it was there; nan if it never was."""
        return math.nan if self._diverged is None else self._diverged[1]

    def best(self, direction: Direction) -> float | None:
        """The best finite value; None if there is none."""
        values = self.finite.values()
        return (min if direction == "minimize" else max)(values, default=None)

    def at(self, step: int) -> float | None:
        """The value at this step, or at the last one before it; None if there is none."""
        known = [each for each in self._points if each <= step]
        return self._points[max(known)] if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoValue:
    """Why a curve gives no value."""

    kind: Literal["missing", "diverged"]
    why: str
    # Where it diverged.
    step: int | None = None


def outcome(curve: Curve, objective: Objective) -> float | NoValue:
    """The value of a trial that has ended, or why it has none; a curve that was not finite has none."""
    if curve.diverged is not None:
        what = "nan" if math.isnan(curve.diverged_value) else "infinite"
        why = f"{objective.metric} diverged: it was {what} at step {curve.diverged}"
        return NoValue(kind="diverged", why=why, step=curve.diverged)
    value = curve.last if objective.take == "last" else curve.best(objective.direction)
    if value is None:
        return NoValue(kind="missing", why=f"no value of {objective.metric} was reported")
    return value


def _shown(text: str) -> str:
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return words if len(words) <= _SHOWN_LETTERS else words[: _SHOWN_LETTERS - 1] + "…"
