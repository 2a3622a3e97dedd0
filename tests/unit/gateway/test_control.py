"""What supervisor and worker tell one another arrives as it was told."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.evaluation.pool import Price
from modelyard.gateway.accounts.sqlite_limits import SqliteLimits
from modelyard.gateway.config import GatewayConfig, Served
from modelyard.gateway.control import (
    CONTROL_VARIABLE,
    LISTEN_VARIABLE,
    WorkerSpec,
    handed_over,
    line,
    new_name,
    open_limits,
    read_line,
)


def test_a_specification_is_read_as_it_was_written(tmp_path: Path) -> None:
    price = Price(prompt_usd_per_million=1.0, as_of="2026-11-01", source="a page")
    model = Served(
        name="a", endpoints=("http://h/v1", "http://h2/v1"), model="m", api_key="KEY", price=price,
        fallbacks=("b",), hedge_after_s=0.5,
    )  # fmt: skip
    spec = WorkerSpec(
        config=GatewayConfig(models=(model,), router="/router", in_flight=3), folder=tmp_path,
        keys_required=True, redis="redis://h", certificate="c", certificate_key="k", traces="http://t",
    )  # fmt: skip
    spec.write(tmp_path / "worker.json")
    assert WorkerSpec.read(tmp_path / "worker.json") == spec


def test_messages_are_lines() -> None:
    told = line("reload", spec="a\nb", number=3)
    assert told.count(b"\n") == 1
    assert read_line(told) == {"say": "reload", "spec": "a\nb", "number": 3}


@pytest.mark.parametrize("data", [b"", b"\n", b"{", b"[]\n", b"3\n", b"\xff\n"])
def test_what_cannot_be_read_says_nothing(data: bytes) -> None:
    assert read_line(data) == {}


def test_descriptors_are_handed_over_by_name() -> None:
    assert handed_over({LISTEN_VARIABLE: "3", CONTROL_VARIABLE: "7"}) == (3, 7)


def test_a_name_is_used_once() -> None:
    names = [new_name(2) for _ in range(100)]
    assert len(set(names)) == 100
    assert all(name.startswith("w2-") for name in names)


def test_limits_are_in_the_folder_where_no_redis_is_named(tmp_path: Path) -> None:
    assert isinstance(open_limits(tmp_path, None), SqliteLimits)
