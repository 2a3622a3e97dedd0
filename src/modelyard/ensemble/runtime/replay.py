"""An engine run over the aligned matrix of a series, origin by origin."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.ensemble.runtime.engine import Engine, Issued
from modelyard.ensemble.runtime.matrix import SeriesMatrix


def replay(engine: Engine, part: SeriesMatrix, start: int, stop: int) -> Iterator[tuple[int, Issued]]:
    """Observe, then issue, at every origin start..stop-1; yields the origin and what was issued."""
    for origin in range(start, stop):
        engine.observe(float(part.truth_t[origin]))
        yield origin, engine.issue(part.origin(origin))
