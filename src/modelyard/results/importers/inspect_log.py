"""Logs of inspect_ai: `.eval` (a zip of header.json and samples/*.json) or one `.json`."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelyard.core.errors import TableError
from modelyard.results.importers import Record, read_json_text

_ZSTD = 93
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


def read_inspect(path: Path, model: str | None) -> Iterator[Record]:
    """The samples of a log; the first scorer is `score`, a sample that failed scores 0 with its error.

    Raises:
        TableError: the file is not such a log.
    """
    if not zipfile.is_zipfile(path):
        log = read_json_text(path.read_bytes(), str(path))
        samples = ((f"{path}: sample {i}", each) for i, each in enumerate(log.get("samples") or []))
        yield from _all(log, samples, path, model)
        return
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if "header.json" not in members:
            raise TableError(f"{path}: has no header.json; the run was not finished, end or retry it")
        log = read_json_text(_member(archive, members["header.json"], path), f"{path}: header.json")
        stored = sorted(name for name in members if name.startswith("samples/"))
        read = ((f"{path}: {n}", read_json_text(_member(archive, members[n], path), n)) for n in stored)
        yield from _all(log, read, path, model)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    """A member's bytes; inspect packs with zstandard, which Python's zipfile does not read."""
    try:
        if info.compress_type != _ZSTD:
            return archive.read(info)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            name, extra = struct.unpack("<26xHH", file.read(30))
            file.seek(name + extra, 1)
            packed = file.read(info.compress_size)
        return bytes(pa.Codec("zstd").decompress(packed, decompressed_size=info.file_size, asbytes=True))
    except (OSError, ValueError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise TableError(f"{path}: {info.filename} cannot be read ({error}); convert it to JSON") from error


def _all(
    log: dict[str, Any], samples: Iterator[tuple[str, Any]], path: Path, model: str | None
) -> Iterator[Record]:
    told = log.get("eval")
    if not isinstance(told, dict):
        raise TableError(f"{path}: has no eval section; give a log that inspect_ai wrote")
    base = {"model": model or str(told.get("model", "")), "run_id": told.get("run_id")}
    task = str(told.get("task", path.stem))
    for place, sample in samples:
        if not isinstance(sample, dict) or "id" not in sample:
            raise TableError(f"{place}: has no id; give a log that inspect_ai wrote")
        yield from _records(sample, place, task, base)


def _records(sample: dict[str, Any], place: str, task: str, base: dict[str, Any]) -> Iterator[Record]:
    error = sample.get("error")
    told = str(error.get("message", error)) if isinstance(error, dict) else None
    usage = [each for each in (sample.get("model_usage") or {}).values() if isinstance(each, dict)]
    common = {
        **base,
        "example_id": f"{task}/{sample['id']}",
        "sample": int(sample.get("epoch", 1)) - 1,
        "latency_s": sample.get("total_time"),
        "prompt_tokens": sum(int(each.get("input_tokens", 0)) for each in usage) if usage else None,
        "completion_tokens": sum(int(each.get("output_tokens", 0)) for each in usage) if usage else None,
        "error": told,
    }
    scores = sample.get("scores") or {}
    if not scores:
        scores, common["error"] = {"none": {"value": 0.0}}, told or "the sample was not scored"
    for place_in_log, (name, score) in enumerate(scores.items()):
        metric = "score" if place_in_log == 0 else str(name)
        value = _value(score.get("value") if isinstance(score, dict) else score, f"{place}: {name}")
        row = {**common, "metric": metric, "value": value, "scorer": f"inspect:{name}"}
        yield Record(row=row, prompt=_prompt(sample.get("input")), place=place)


def _value(value: object, place: str) -> float:
    if isinstance(value, str) and value in _LETTERS:
        return _LETTERS[value]
    if isinstance(value, int | float):
        return float(value)
    raise TableError(f"{place}: {value!r} is no score; use a scorer that gives C, I, P, N or a number")


def _prompt(given: object) -> str:
    if isinstance(given, str):
        return given
    parts = (
        [each.get("content") for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    )
    return "\n\n".join(part for part in parts if isinstance(part, str))
