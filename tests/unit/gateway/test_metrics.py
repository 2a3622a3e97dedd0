"""Prometheus reads what workers count, and the sums are those of all of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.gateway.accounts.records import Outcome, RequestRecord, UsageSource
from modelyard.gateway.metrics import BUCKETS_S, Metrics, exposition, forget

NOW = time.time()


def record(**more: Any) -> RequestRecord:
    given = {
        "request_id": "r", "worker": "w", "started_at": NOW, "endpoint": "/chat/completions",
        "asked_model": "a", "status": 200, "outcome": Outcome.OK, "stream": False, "latency_s": 0.2,
        "attempts": 1, "served_model": "a", "prompt_tokens": 3, "completion_tokens": 4,
        "cost_nano_usd": 11_000, "usage_source": UsageSource.REPORTED, "first_byte_s": 0.1,
    }  # fmt: skip
    return RequestRecord(**{**given, **more})


def samples(folder: Path, now: float = NOW) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and label values, that of the model first."""
    families = text_string_to_metric_families(exposition(folder, now).decode())
    return {
        (
            s.name,
            tuple(s.labels[name] for name in sorted(s.labels, key=lambda name: name != "model")),
        ): s.value
        for family in families
        for s in family.samples
    }


def test_what_two_workers_counted_is_summed(tmp_path: Path) -> None:
    for worker in ("one", "two"):
        metrics = Metrics()
        metrics.answered(record())
        metrics.answered(record(latency_s=7.0, outcome=Outcome.CUT))
        metrics.refused["overloaded"] += 2
        metrics.upstream_failed("a", "cut")
        metrics.gauges["connections"] = 5
        metrics.write(tmp_path, worker)
    found = samples(tmp_path)
    assert found["modelyard_requests_total", ("a", "ok")] == 2
    assert found["modelyard_requests_total", ("a", "cut")] == 2
    assert found["modelyard_upstream_failures_total", ("a", "cut")] == 2
    assert found["modelyard_tokens_total", ("a", "prompt")] == 12
    assert found["modelyard_tokens_total", ("a", "completion")] == 16
    assert found["modelyard_cost_usd_total", ("a",)] == pytest.approx(44e-6)
    assert found["modelyard_refused_total", ("overloaded",)] == 4
    assert found["modelyard_connections", ()] == 10
    assert found["modelyard_request_seconds_count", ("a",)] == 4
    assert found["modelyard_request_seconds_sum", ("a",)] == pytest.approx(14.4)
    assert found["modelyard_first_byte_seconds_count", ("a",)] == 4


def test_times_are_in_buckets_that_add_up(tmp_path: Path) -> None:
    metrics = Metrics()
    for seconds in (0.0, 0.001, 0.0011, 5.0, 1e9):
        metrics.answered(record(latency_s=seconds))
    metrics.write(tmp_path, "w")
    found = samples(tmp_path)
    buckets = [found["modelyard_request_seconds_bucket", ("a", f"{end}")] for end in BUCKETS_S]
    assert buckets[:2] == [2, 3]
    assert buckets[BUCKETS_S.index(2.5)] == 3
    assert buckets[BUCKETS_S.index(5.0)] == buckets[-1] == 4
    assert found["modelyard_request_seconds_bucket", ("a", "+Inf")] == 5


def test_what_is_estimated_or_not_known_is_told_apart(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.answered(record(usage_source=UsageSource.ESTIMATED))
    metrics.answered(record(cost_nano_usd=None))
    metrics.spent(record(outcome=Outcome.LOST, usage_source=UsageSource.ESTIMATED))
    metrics.answered(record(served_model=None, prompt_tokens=None, completion_tokens=None, cost_nano_usd=0))
    metrics.write(tmp_path, "w")
    found = samples(tmp_path)
    assert found["modelyard_uncertain_requests_total", ("a", "estimated")] == 2
    assert found["modelyard_uncertain_requests_total", ("a", "unknown")] == 1
    assert found["modelyard_requests_total", ("a", "ok")] == 2
    assert found["modelyard_requests_total", ("", "ok")] == 1
    assert found["modelyard_tokens_total", ("", "prompt")] == 0


def test_counts_of_a_worker_that_has_gone_stay_and_its_gauges_go(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.answered(record())
    metrics.gauges["connections"] = 5
    metrics.write(tmp_path, "gone")
    file = tmp_path / "metrics/gone.json"
    os.utime(file, (NOW - 60, NOW - 60))
    found = samples(tmp_path)
    assert found["modelyard_requests_total", ("a", "ok")] == 1
    assert ("modelyard_connections", ()) not in found


def test_names_may_hold_anything(tmp_path: Path) -> None:
    metrics, name = Metrics(), 'a "b"\\\nc'
    metrics.answered(record(served_model=name))
    metrics.write(tmp_path, "w")
    assert samples(tmp_path)["modelyard_requests_total", (name, "ok")] == 1


def test_a_gateway_begins_at_zero(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.answered(record())
    metrics.write(tmp_path, "w")
    forget(tmp_path)
    assert not samples(tmp_path)
    forget(tmp_path / "nowhere")
