"""What a worker counts, and all workers' counts in Prometheus' text format.

Workers keep plain numbers, because the client library takes microseconds for each; they are written down
each second, and whichever worker is asked for metrics adds up what all have written, the dead ones' too.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from modelyard.gateway.accounts.records import RequestRecord, UsageSource

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Upper ends of the buckets of times, in seconds.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
FOLDER = "metrics"
#: A worker that has written nothing for so long has gone.
_FRESH_S = 10.0


@dataclass(slots=True)
class Times:
    """A histogram of seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what another worker counted."""
        self.counts = [a + b for a, b in zip(self.counts, other["counts"], strict=True)]
        self.sum_s += other["sum_s"]


@dataclass(slots=True)
class ModelCounts:
    """What was counted of one model; the model "" is none."""

    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    whole: Times = field(default_factory=Times)
    first: Times = field(default_factory=Times)
    numbers: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what another worker counted."""
        for name in ("outcomes", "failures", "numbers"):
            mine = getattr(self, name)
            for key, value in other[name].items():
                mine[key] += value
        self.whole.merge(other["whole"])
        self.first.merge(other["first"])


class Metrics:
    """The counts of one worker since it began."""

    def __init__(self) -> None:
        self.models: dict[str, ModelCounts] = defaultdict(ModelCounts)
        self.refused: dict[str, int] = defaultdict(int)
        #: What is so now: requests in flight, connections.
        self.gauges: dict[str, int] = {}

    def answered(self, record: RequestRecord) -> None:
        """A request has ended."""
        counts = self.models[record.served_model or ""]
        counts.outcomes[record.outcome] += 1
        counts.whole.add(record.latency_s)
        if record.first_byte_s is not None:
            counts.first.add(record.first_byte_s)
        self.spent(record)

    def spent(self, record: RequestRecord) -> None:
        """Tokens and money of a request, or of an attempt that nobody got an answer of."""
        numbers = self.models[record.served_model or ""].numbers
        numbers["prompt_tokens"] += record.prompt_tokens or 0
        numbers["completion_tokens"] += record.completion_tokens or 0
        if record.cost_nano_usd is None:
            numbers["unknown_cost"] += 1
        else:
            numbers["nano_usd"] += record.cost_nano_usd
        if record.usage_source is UsageSource.ESTIMATED:
            numbers["estimated"] += 1

    def upstream_failed(self, model: str, kind: str) -> None:
        """An attempt has failed."""
        self.models[model].failures[kind] += 1

    def write(self, folder: Path, worker: str) -> None:
        """Write the counts down, whole."""
        record = {"models": self.models, "refused": self.refused, "gauges": self.gauges}
        place = folder / FOLDER
        place.mkdir(exist_ok=True)
        unnamed = place / f".{worker}.new"
        unnamed.write_bytes(orjson.dumps(record, option=orjson.OPT_NON_STR_KEYS))
        unnamed.replace(place / f"{worker}.json")


def forget(folder: Path) -> None:
    """Begin anew: counters start at zero with the gateway."""
    for file in (folder / FOLDER).glob("*.json"):
        file.unlink(missing_ok=True)


def exposition(folder: Path, now: float) -> bytes:
    """All workers' counts for Prometheus, at a moment in Unix seconds; gauges of the living only."""
    from prometheus_client import CollectorRegistry, generate_latest

    collector = _Sum(folder, now)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


class _Sum:
    """Adds up the files of a folder when it is asked."""

    def __init__(self, folder: Path, now: float) -> None:
        self._models: dict[str, ModelCounts] = defaultdict(ModelCounts)
        self._refused: dict[str, int] = defaultdict(int)
        self._gauges: dict[str, int] = defaultdict(int)
        for file in sorted((folder / FOLDER).glob("*.json")):
            record = json.loads(file.read_bytes())
            for name, counts in record["models"].items():
                self._models[name].merge(counts)
            for reason, count in record["refused"].items():
                self._refused[reason] += count
            if now - file.stat().st_mtime < _FRESH_S:
                for name, value in record["gauges"].items():
                    self._gauges[name] += value

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's collectors."""
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        requests = CounterMetricFamily(
            "modelyard_requests", "Requests that have ended.", labels=["model", "outcome"]
        )
        failures = CounterMetricFamily(
            "modelyard_upstream_failures", "Attempts that failed.", labels=["model", "kind"]
        )
        whole = HistogramMetricFamily(
            "modelyard_request_seconds", "From the request to the end of its answer.", labels=["model"]
        )
        first = HistogramMetricFamily(
            "modelyard_first_byte_seconds",
            "From the request to the beginning of its answer.",
            labels=["model"],
        )
        tokens = CounterMetricFamily("modelyard_tokens", "Tokens used.", labels=["model", "kind"])
        cost = CounterMetricFamily("modelyard_cost_usd", "What answers cost.", labels=["model"])
        doubtful = CounterMetricFamily(
            "modelyard_uncertain_requests",
            "Requests whose cost is estimated or not known.",
            labels=["model", "why"],
        )
        for name, counts in self._models.items():
            for outcome, count in counts.outcomes.items():
                requests.add_metric([name, outcome], count)
            for kind, count in counts.failures.items():
                failures.add_metric([name, kind], count)
            _add_times(whole, name, counts.whole)
            _add_times(first, name, counts.first)
            numbers = counts.numbers
            for kind in ("prompt", "completion"):
                tokens.add_metric([name, kind], numbers.get(f"{kind}_tokens", 0))
            cost.add_metric([name], numbers.get("nano_usd", 0) * 1e-9)
            doubtful.add_metric([name, "estimated"], numbers.get("estimated", 0))
            doubtful.add_metric([name, "unknown"], numbers.get("unknown_cost", 0))
        refused = CounterMetricFamily(
            "modelyard_refused", "Requests that were not let in.", labels=["reason"]
        )
        for reason, count in self._refused.items():
            refused.add_metric([reason], count)
        yield from (requests, failures, whole, first, tokens, cost, doubtful, refused)
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"modelyard_{name}", f"Now: {name.replace('_', ' ')}.", value=value)


def _add_times(family: Any, name: str, times: Times) -> None:
    total, buckets = 0, []
    for end, count in zip((*BUCKETS_S, None), times.counts, strict=True):
        total += count
        buckets.append(("+Inf" if end is None else repr(end), total))
    family.add_metric([name], buckets, sum_value=times.sum_s)
