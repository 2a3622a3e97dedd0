"""The request log: Parquet by day, whole files, and how long they stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.unit.gateway.accounts.conftest import NOON_S

from modelyard.gateway.accounts.journal import JournalFile
from modelyard.gateway.accounts.log_settings import LogSettings
from modelyard.gateway.accounts.records import FIELDS, RequestRecord
from modelyard.gateway.accounts.request_log import SCHEMA, forget_logs, write_log

DAY_S = 86_400
Write = Callable[..., Path]


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder / "log").as_posix() for path in (folder / "log").rglob("*") if path.is_file()
    )


def test_a_journal_becomes_a_file_for_each_day(
    folder: Path, write_journal: Write, make_record: Callable[..., RequestRecord]
) -> None:
    fields = [
        {"prompt": "two\nlines é", "answer": "", "cluster": 3, "predicted_error": 0.25},
        {"started_at": NOON_S + DAY_S - 43_200.5, "cost_nano_usd": None},
        {"started_at": NOON_S + DAY_S - 43_200.0},
    ]
    path = write_journal("w1", *fields)
    for _ in range(2):  # again changes nothing
        write_log(folder, JournalFile(path=path, worker="w1", number=1))
        assert names(folder) == ["date=2026-11-26/w1-1.parquet", "date=2026-11-27/w1-1.parquet"]
    today = pq.read_table(folder / "log/date=2026-11-26/w1-1.parquet", partitioning=None)
    assert today.schema.equals(SCHEMA)
    expected = [make_record(f"w1-{n}", **{"worker": "w1", **fields[n]})._asdict() for n in range(2)]
    assert today.to_pylist() == expected
    whole = ds.dataset(folder / "log", partitioning="hive").to_table()
    assert sorted(whole["request_id"].to_pylist()) == ["w1-0", "w1-1", "w1-2"]
    assert set(map(str, whole["date"].to_pylist())) == {"2026-11-26", "2026-11-27"}


def test_an_empty_journal_makes_no_file(folder: Path, write_journal: Write) -> None:
    path = write_journal("w1", torn=b"half a li")
    write_log(folder, JournalFile(path=path, worker="w1", number=1))
    assert not (folder / "log").exists()


def test_every_field_of_a_record_has_a_column() -> None:
    assert tuple(SCHEMA.names) == FIELDS


def write_days(folder: Path, sizes: dict[str, int]) -> None:
    for day, size in sizes.items():
        path = folder / "log" / f"date={day}" / "w-1.parquet"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * size)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (LogSettings(keep_days=None), ["2026-10-01", "2026-11-24", "2026-11-25", "2026-11-26"]),
        (LogSettings(keep_days=2), ["2026-11-24", "2026-11-25", "2026-11-26"]),
        (LogSettings(keep_days=0), ["2026-11-26"]),
        (LogSettings(keep_days=None, keep_bytes=399), ["2026-11-24", "2026-11-25", "2026-11-26"]),
        (LogSettings(keep_days=None, keep_bytes=150), ["2026-11-26"]),
        (LogSettings(keep_days=None, keep_bytes=1), ["2026-11-26"]),
        (LogSettings(keep_days=1, keep_bytes=200), ["2026-11-25", "2026-11-26"]),
    ],
)
def test_days_that_are_older_or_too_much_go(folder: Path, settings: LogSettings, kept: list[str]) -> None:
    write_days(folder, dict.fromkeys(["2026-10-01", "2026-11-24", "2026-11-25", "2026-11-26"], 100))
    forget_logs(folder, settings, NOON_S)
    assert [name[5:15] for name in names(folder)] == kept


def test_without_a_log_there_is_nothing_to_forget(folder: Path) -> None:
    forget_logs(folder, LogSettings(keep_days=1, keep_bytes=1), NOON_S)
    assert not folder.exists()
