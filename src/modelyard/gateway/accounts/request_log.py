"""The request log: Parquet files by day of admission, made of journals that no worker writes any more.

`log/date=2026-11-26/<worker>-<n>.parquet` has the requests of one journal file and day. Written again it
replaces itself, so that a crash doubles nothing.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from modelyard.core.failpoints import failpoint
from modelyard.gateway.accounts.journal import JournalFile
from modelyard.gateway.accounts.log_settings import LogSettings
from modelyard.gateway.accounts.records import FIELDS, read_line

FOLDER = "log"
_CHUNK_BYTES = 4 << 20
_DAY_S = 86_400
_TYPES = {
    "started_at": pa.float64(), "status": pa.int16(), "stream": pa.bool_(), "latency_s": pa.float64(),
    "attempts": pa.int32(), "prompt_tokens": pa.int64(), "completion_tokens": pa.int64(),
    "cost_nano_usd": pa.int64(), "booked_nano_usd": pa.int64(), "first_byte_s": pa.float64(),
    "cluster": pa.int32(), "predicted_error": pa.float64(),
}  # fmt: skip
SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in FIELDS])


def write_log(folder: Path, file: JournalFile) -> None:
    """Write the requests of a journal file into the log of the gateway's folder, each day's file whole."""
    writers: dict[int, pq.ParquetWriter] = {}
    paths: dict[Path, Path] = {}
    with ExitStack() as opened:
        for table in _tables(file.path):
            days = pc.floor(pc.divide(table["started_at"], float(_DAY_S)))
            for day in pc.unique(days).to_pylist():
                if day not in writers:
                    path = _place(folder, file, int(day))
                    temporary = path.with_name(f".{path.name}.tmp")
                    paths[temporary] = path
                    writers[day] = opened.enter_context(
                        pq.ParquetWriter(temporary, SCHEMA, compression="zstd")
                    )
                writers[day].write_table(table.filter(pc.equal(days, day)))
    failpoint("gateway.before_log_renamed")
    for temporary, path in paths.items():
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)


def forget_logs(folder: Path, settings: LogSettings, now_s: float) -> None:
    """Remove the days of the log that are older or more than is kept; the youngest day stays."""
    days = sorted((folder / FOLDER).glob("date=*"))
    if settings.keep_days is not None:
        first = datetime.fromtimestamp(now_s, UTC).date() - timedelta(days=settings.keep_days)
        old = [path for path in days if path.name.partition("=")[2] < first.isoformat()]
        days = days[len(old) :]
        for path in old:
            shutil.rmtree(path)
    if settings.keep_bytes is not None:
        sizes = [sum(each.stat().st_size for each in path.iterdir()) for path in days]
        while len(days) > 1 and sum(sizes) > settings.keep_bytes:
            shutil.rmtree(days.pop(0))
            sizes.pop(0)


def _place(folder: Path, file: JournalFile, day: int) -> Path:
    name = (date(1970, 1, 1) + timedelta(days=day)).isoformat()
    place = folder / FOLDER / f"date={name}" / f"{file.worker}-{file.number}.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _tables(path: Path) -> Iterator[pa.Table]:
    """The records of a journal file, some thousands at a time; lines that are no records are left out."""
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES) + file.readline():
            lines = [line for line in data.split(b"\n") if read_line(line) is not None]
            if lines:
                data = b"\n".join(lines)
                yield pyarrow.json.read_json(
                    io.BytesIO(data),
                    read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
                    parse_options=pyarrow.json.ParseOptions(
                        explicit_schema=SCHEMA, unexpected_field_behavior="ignore"
                    ),
                ).select(list(FIELDS))
