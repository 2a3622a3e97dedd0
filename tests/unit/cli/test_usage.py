"""`usage`: folded first, told apart, and honest about what is not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from modelyard.gateway.accounts.journal import RequestJournal
from modelyard.gateway.accounts.records import Outcome, RequestRecord, UsageSource

Call = Callable[..., Result]
#: 2026-11-26 12:00:00 UTC.
NOON_S = 1_795_694_400.0


@pytest.fixture
def key(call: Call) -> str:
    return str(json.loads(call("keys", "create", "--name", "batch", "--json").stdout)["id"])


@pytest.fixture
def journal(tmp_path: Path, key: str) -> Callable[..., None]:
    """Append a request to a living worker's journal."""
    opened = RequestJournal(tmp_path / ".modelyard" / "gateway", "w1")

    def append(**fields: Any) -> None:
        given = {
            "request_id": "r", "worker": "w1", "started_at": NOON_S, "endpoint": "/v1/chat/completions",
            "asked_model": "auto", "status": 200, "outcome": Outcome.OK, "stream": True, "latency_s": 1.0,
            "attempts": 1, "key": key, "served_model": "small", "upstream": "near", "prompt_tokens": 1000,
            "completion_tokens": 20, "usage_source": UsageSource.REPORTED, "cost_nano_usd": 1_500_000_000,
        }  # fmt: skip
        opened.append(RequestRecord(**{**given, **fields}))

    return append


def test_usage_is_a_table_with_its_total(call: Call, key: str, journal: Callable[..., None]) -> None:
    journal()
    journal(outcome=Outcome.CUT, cost_nano_usd=None, usage_source=UsageSource.ESTIMATED)
    journal(key=None, cost_nano_usd=1)
    journal(key=None, cost_nano_usd=2, outcome=Outcome.LOST)
    lines = call("usage").stdout.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["key", "requests", "failed", "prompt", "answer", "USD"],
        [key, "batch", "2", "1", "2,000", "40", "1.50"],
        ["(none)", "1", "0", "2,000", "40", "0.000000003"],
        ["total", "3", "1", "4,000", "80", "1.500000003"],
    ]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4:] == [
        "1 requests have no known cost; they are in no sum of USD",
        "1 requests had their tokens counted here; their upstreams told none",
        "1 attempts gave no answer and may be billed; the sums have their estimated costs",
    ]


def test_usage_for_machines_by_each_part(call: Call, key: str, journal: Callable[..., None]) -> None:
    journal()
    journal(started_at=NOON_S - 86_400, served_model="large", upstream="far")

    def told(*arguments: str) -> list[tuple[str, float]]:
        answer = json.loads(call("usage", *arguments, "--json").stdout)
        assert answer["total"]["usd"] == sum(row["usd"] for row in answer["rows"])
        return [(row["of"], row["usd"]) for row in answer["rows"]]

    assert told() == [(key, 3.0)]
    assert told("--by", "model") == [("large", 1.5), ("small", 1.5)]
    assert told("--by", "upstream") == [("far", 1.5), ("near", 1.5)]
    assert told("--by", "day") == [("2026-11-25", 1.5), ("2026-11-26", 1.5)]
    assert told("--by", "day", "--since", "2026-11-26") == [("2026-11-26", 1.5)]
    assert told("--by", "day", "--until", "2026-11-25") == [("2026-11-25", 1.5)]
    assert told("--key", "nobody") == []


def test_what_was_spent_is_in_the_list_of_keys(call: Call, key: str, journal: Callable[..., None]) -> None:
    journal()
    assert [each["spent_nano_usd"] for each in json.loads(call("keys", "list", "--json").stdout)] == [
        1_500_000_000
    ]


def test_lines_that_were_dropped_are_told(call: Call, tmp_path: Path, journal: Callable[..., None]) -> None:
    journal()
    [path] = (tmp_path / ".modelyard" / "gateway" / "requests").glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b"no record\n")
    assert call("usage").stdout.splitlines()[-1].startswith("1 lines of the journals were cut off")
    assert json.loads(call("usage", "--json").stdout)["dropped_lines"] == 1


def test_a_date_that_is_none_is_refused(call: Call, key: str) -> None:
    result = call("usage", "--since", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' does not match the format '%Y-%m-%d'" in result.stderr
