"""Watching one attempt at a trial: all that it reports, as points and values for the study."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from modelyard.tuning.metrics.curves import NoValue, outcome
from modelyard.tuning.metrics.files import MetricSources, Places
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.trial import Objective

#: Bytes of what a job printed from an offset on, and the offset to go on from.
Stream = Callable[[int], tuple[bytes, int]]


class Watch:
    """Reads one attempt from its beginning, and goes on where it left off at each look."""

    def __init__(
        self, *, key: str, rules: MetricRules, places: Places, seen: Mapping[int, float], logs: Stream
    ) -> None:
        """`key` is the job's; `seen` has the points of the first metric that were taken over before."""
        self.key = key
        self._sources = MetricSources(rules, places)
        self._main = self._sources.curves[rules.names[0]]
        self._metric = rules.names[0]
        self._logs, self._offset = logs, 0
        self._told = dict(seen)
        self._again = max(seen, default=None)  # whether it was judged is not known

    @property
    def diverged(self) -> str:
        """Why the first metric is no number any more; empty while it is one."""
        if self._main.diverged is None:
            return ""
        what = "nan" if math.isnan(self._main.diverged_value) else "infinite"
        return f"{self._metric} diverged: it was {what} at step {self._main.diverged}"

    def look(self, *, ended_well: bool | None = None) -> list[tuple[int, float]]:
        """New finite points of the first metric, by step.

        Args:
            ended_well: Whether the command ended by itself with status 0; None while it runs.
        """
        printed, self._offset = self._logs(self._offset)
        self._sources.feed(printed)
        if ended_well is None:
            self._sources.poll()
        else:
            self._sources.finish(ended_well=ended_well)
        points = self._main.finite
        fresh = [
            (step, value)
            for step, value in points.items()
            if self._told.get(step) != value or step == self._again
        ]
        self._told |= points
        self._again = None if fresh else self._again
        return fresh

    def values(self, objectives: Sequence[Objective]) -> tuple[float, ...] | str:
        """One value for each objective; or why there is none."""
        found = []
        for objective in objectives:
            value = outcome(self._sources.curves[objective.metric], objective)
            if isinstance(value, NoValue):
                doubts = self._sources.passed_over if value.kind == "missing" else ()
                return value.why + (f"; in doubt was: {doubts[0]}" if doubts else "")
            found.append(value)
        return tuple(found)

    def others(self) -> dict[str, float]:
        """The last finite value of every metric that was told."""
        lasts = {name: curve.last for name, curve in self._sources.curves.items()}
        return {name: value for name, value in lasts.items() if value is not None and math.isfinite(value)}
