"""Logs of inspect_ai: `.eval` (a zip of header.json and samples/*.json) or one `.json`."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelyard.core.digests import digest_bytes
from modelyard.core.errors import TableError
from modelyard.results.importers import Record, message_text, read_json_text

_ZSTD = 93
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_CORRECT = "correct the log or give it as inspect_ai wrote it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """What is kept of a sample until the whole log has been read."""

    place: str
    id: int | str
    prompt: str
    row: Mapping[str, Any]
    # By scorer, and by name below it: a scorer may give several numbers; None was not scored.
    scores: Mapping[str, Mapping[str, float | None]]


def read_inspect(path: Path, model: str | None) -> Iterator[Record]:
    """The samples of a log; the first scorer is `score`, a sample without it scores 0 with an error.

    A scorer that gives several numbers is a metric for each, as `scorer.part`.

    Raises:
        TableError: the file is not such a log, or a value in it is not what it should be.
    """
    if not zipfile.is_zipfile(path):
        log = read_json_text(path.read_bytes(), str(path))
        given = log.get("samples") or []
        if not isinstance(given, list):
            raise TableError(f"{path}: samples is no list; {_CORRECT}")
        yield from _all(log, ((f"{path}: sample {i}", each) for i, each in enumerate(given)), path, model)
        return
    try:
        opened = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise TableError(f"{path}: cannot be read ({error}); copy the log again") from error
    with opened as archive:
        members = {info.filename: info for info in archive.infolist()}
        if "header.json" not in members:
            raise TableError(f"{path}: has no header.json; the run was not finished, end or retry it")
        log = read_json_text(_member(archive, members["header.json"], path), f"{path}: header.json")
        stored = ((f"{path}: {name}", members[name]) for name in sorted(members))
        samples = (
            (place, read_json_text(_member(archive, info, path), place))
            for place, info in stored
            if info.filename.startswith("samples/")
        )
        yield from _all(log, samples, path, model)


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
    except (OSError, EOFError, RuntimeError, ValueError, struct.error, zlib.error) as error:
        raise TableError(f"{path}: {info.filename} cannot be read ({error}); convert it to JSON") from error
    except zipfile.BadZipFile as error:
        raise TableError(f"{path}: {info.filename} cannot be read ({error}); copy the log again") from error


def _all(
    log: dict[str, Any], samples: Iterator[tuple[str, Any]], path: Path, model: str | None
) -> Iterator[Record]:
    told = log.get("eval")
    if not isinstance(told, dict):
        raise TableError(f"{path}: has no eval section; give a log that inspect_ai wrote")
    name, task, run = model or told.get("model"), told.get("task", path.stem), told.get("run_id")
    if not (isinstance(name, str) and name and isinstance(task, str) and isinstance(run, str | None)):
        raise TableError(f"{path}: model, task or run_id of the eval section is no text; {_CORRECT}")
    read = [_sample(each, place) for place, each in samples]
    scorer, part = _main(told, read, path)
    asked = Counter(prompt for _, prompt in {(each.id, each.prompt) for each in read})
    for sample in read:
        # A name is the dataset's, a number may be a mere place: another order, another question. Where
        # several ids ask the same, and differ in files or tools, the id tells.
        named = isinstance(sample.id, str) or asked[sample.prompt] > 1
        content = f"{task}/{digest_bytes(sample.prompt.encode())}" + (f"/{sample.id}" if named else "")
        common = {"model": name, "run_id": run, **sample.row, "example_id": f"{task}/{sample.id}"}
        for row in _rows(sample, scorer, part):
            yield Record(row={**common, **row}, prompt=sample.prompt, content=content, place=sample.place)


def _main(told: Mapping[str, Any], read: list[_Sample], path: Path) -> tuple[str, str]:
    """The scorer that is `score`, and its number: the task's first, else the first that scored."""
    listed = told.get("scorers")
    first = listed[0] if isinstance(listed, list) and listed else None
    named = str(first.get("name", "")).rpartition("/")[2] if isinstance(first, dict) else ""
    names = [scorer for each in read for scorer in each.scores]
    if not names and any(each.row["error"] is None for each in read):
        raise TableError(f"{path}: no sample is scored; score the log (inspect score) and give the new one")
    scorer = named if named in names or not names else names[0]
    parts = (part for each in read for part in each.scores.get(scorer, ()))
    return scorer, next(parts, scorer)


def _rows(sample: _Sample, scorer: str, part: str) -> Iterator[dict[str, Any]]:
    value = sample.scores.get(scorer, {}).get(part)
    row: dict[str, Any] = {"metric": "score", "value": value, "scorer": f"inspect:{part or 'none'}"}
    if value is None:
        row |= {"value": 0.0, "error": sample.row["error"] or "the sample was not scored"}
    elif not 0 <= value <= 1:
        raise TableError(
            f"{sample.place}: {part} is {value}, but a score lies in [0, 1]; "
            "put a scorer first that gives one"
        )
    yield row
    for other, parts in sample.scores.items():
        for name, number in parts.items():
            if (other, name) != (scorer, part) and number is not None:
                given = f"inspect:{name}"
                yield {"metric": given if name == "score" else name, "value": number, "scorer": given}


def _sample(given: object, place: str) -> _Sample:
    if not isinstance(given, dict):
        raise TableError(f"{place}: is no object but {given!r:.40}; {_CORRECT}")
    known = given.get("id")
    if isinstance(known, bool) or not isinstance(known, int | str):
        raise TableError(f"{place}: has no id; give a log that inspect_ai wrote")
    asked = given.get("input")
    scores = _object(given, "scores", place)
    return _Sample(
        place=place,
        id=known,
        prompt=asked if isinstance(asked, str) else message_text(asked),
        row=_common(given, place),
        scores={name: _parts(name, score, f"{place}: {name}") for name, score in scores.items()},
    )


def _common(sample: Mapping[str, Any], place: str) -> dict[str, Any]:
    usage = _object(sample, "model_usage", place)
    told, latency = sample.get("error"), sample.get("total_time")
    if told is not None and not isinstance(told, dict | str):
        raise TableError(f"{place}: error is {told!r}, not an object or text; {_CORRECT}")
    if (
        isinstance(latency, bool)
        or not isinstance(latency, int | float | None)
        or not 0 <= (latency or 0) < 1e9
    ):
        raise TableError(f"{place}: total_time is {latency!r:.40}, not a number of seconds; {_CORRECT}")
    return {
        "sample": _whole(sample.get("epoch", 1), f"{place}: epoch", 1) - 1,
        "latency_s": latency,
        "prompt_tokens": _tokens(usage, "input_tokens", place),
        "completion_tokens": _tokens(usage, "output_tokens", place),
        "error": str(told.get("message", told)) if isinstance(told, dict) else told,
    }


def _object(sample: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    value = sample.get(name) or {}
    if not isinstance(value, dict):
        raise TableError(f"{place}: {name} is {value!r:.40}, not an object; {_CORRECT}")
    return value


def _tokens(usage: Mapping[str, Any], name: str, place: str) -> int | None:
    """The tokens of all models together, None where nobody counted."""
    counts = []
    for model in usage:
        count = _object(usage, model, f"{place}: model_usage").get(name, 0)
        counts.append(None if count is None else _whole(count, f"{place}: {name} of {model}", 0))
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _whole(value: object, place: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 31:
        raise TableError(f"{place} is {value!r:.40}, not a whole number from {least}; {_CORRECT}")
    return value


def _parts(name: str, score: object, place: str) -> dict[str, float | None]:
    """A scorer's numbers: one under its name, or one for each part of an object or a list."""
    value = score.get("value") if isinstance(score, dict) else score
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {f"{name}.{part}": _value(each, f"{place}.{part}") for part, each in value.items()}
    return {name: _value(value, place)}


def _value(value: object, place: str) -> float | None:
    """A number as inspect reads it; None is a sample that the scorer left out, which inspect writes NaN."""
    read = _LETTERS.get(value, _WORDS.get(value.lower(), value)) if isinstance(value, str) else value
    try:
        number = float(read) if isinstance(read, int | float | str) else math.inf
    except (ValueError, OverflowError):
        number = math.inf
    if value is None or math.isnan(number):
        return None
    if math.isfinite(number):
        return number
    raise TableError(f"{place}: {value!r:.40} is no score; use a scorer that gives C, I, P, N or a number")
