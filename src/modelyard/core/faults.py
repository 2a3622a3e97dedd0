"""Faults of a document, and reading a document so that all of them are found at once.

A `Fault` names the file, the key, the offending value and the remedy. A `Section` reads one
mapping of a document: every accessor returns a usable value of the right type and notes a fault
where the document's is not, so that a reader goes on to the next key. `read_json_document` opens a
document that is JSON. Nothing here knows what the document is for.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from modelyard.core.errors import DocumentError, Fault

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 3660 * 86400.0
_MISSING = object()
_NUL = "\0"  # no command, path or variable can hold it
#: The largest integer that every reader of JSON keeps exact.
_EXACT = 2**53 - 1
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Faults:
    """Collects the faults of one document."""

    file: str
    found: list[Fault] = field(default_factory=list)

    def add(self, key: str, value: object, problem: str, remedy: str, *, here: bool = False) -> None:
        """Note a fault; `value` is shown as JSON, shortened, and left out when it is None."""
        self.found.append(
            Fault(file=self.file, key=key, value=_shown(value), problem=problem, remedy=remedy, here=here)
        )

    def raise_if_any(self) -> None:
        """Raise `DocumentError` with everything found, if anything was."""
        if self.found:
            raise DocumentError(self.found)


def read_json_document(path: Path, faults: Faults) -> object:
    """The JSON value of a file that a user wrote; one fault, and an empty mapping, where there is none.

    A byte order mark is passed over, and NaN and the infinities are read as numbers: whether they may
    stand there is for the reader of the key to say.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(value, ensure_ascii=False).encode()  # half a character can neither be stored nor launched
        return value
    except FileNotFoundError:
        faults.add("", None, "does not exist", "give the path of the file")
    except UnicodeDecodeError as error:
        faults.add("", None, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        faults.add(place, None, f"is not JSON ({error.msg})", "correct the file there")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; very deep nesting
        faults.add("", None, f"cannot be read as JSON ({error})", "write it plainly")
    except OSError as error:
        faults.add("", None, f"cannot be read ({error.strerror})", "give a file that you may read")
    return {}


class Section:
    """One mapping of a document, read key by key; call `close` after the last key."""

    def __init__(self, data: object, *, faults: Faults, path: str = "") -> None:
        self.faults = faults
        self.path = path
        self._read: set[str] = set()
        if isinstance(data, Mapping):
            self.data: Mapping[str, Any] = data
        else:
            self.data = {}
            faults.add(path, data, "is not a mapping of keys to values", "write key: value pairs here")

    def key(self, name: str) -> str:
        """The full dotted path of a key, for messages."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        """Whether the key stands in the document with a value other than null."""
        return self.data.get(name) is not None

    def raw(self, name: str, default: object = None) -> Any:
        """The value as it stands, marked as read."""
        self._read.add(name)
        return self.data.get(name, default)

    def text(self, name: str, default: str | None = None) -> str:
        """A string that is not empty; without a default the key is required."""
        value = self._take(name, default)
        if isinstance(value, str) and value.strip() and _NUL not in value:
            return value
        return self._wrong(name, value, "is not a non-empty string", "write a string", default or "")

    def optional_text(self, name: str) -> str | None:
        """A string, or None where the key is absent or null."""
        return self.text(name) if self.raw(name) is not None else None

    def flag(self, name: str, *, default: bool) -> bool:
        """true or false; a string such as "false" is a fault, because it would count as true."""
        value = self._take(name, default)
        if isinstance(value, bool):
            return value
        return self._wrong(name, value, "is not a boolean", "write true or false without quotes", default)

    def integer(self, name: str, default: int | None, *, low: int, high: int | None = None) -> int:
        """An integer in [low, high]; without `high` up to what JSON keeps exact, 2^53 - 1."""
        value = self._take(name, default)
        fallback = low if default is None else default
        if isinstance(value, bool) or not isinstance(value, int):
            return self._wrong(
                name, value, "is not an integer", f"write an integer of at least {low}", fallback
            )
        top = _EXACT if high is None else high
        if not low <= value <= top:
            upper = "" if high is None and value < low else f" and at most {top}"
            return self._wrong(name, value, "is out of range", f"use at least {low}{upper}", fallback)
        return value

    def number(self, name: str, default: float | None, *, above: float, below: float = math.inf) -> float:
        """A finite number strictly between `above` and `below`."""
        value = self._take(name, default)
        fallback = above if default is None else default
        span = f"above {above:g}" + ("" if math.isinf(below) else f" and below {below:g}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self._wrong(name, value, "is not a number", f"write a number {span}", fallback)
        try:
            exact = float(value)
        except OverflowError:
            exact = math.inf
        if not math.isfinite(exact) or not above < exact < below:
            return self._wrong(name, value, "is out of range", f"use a number {span}", fallback)
        return exact

    def duration(self, name: str, default: str | None, *, most_s: float = _LONGEST_S) -> float:
        """Seconds, from a number and its unit: 90s, 30min, 2h or 1d."""
        given = self.text(name, default)
        seconds = duration_s(given)
        if 1e-6 <= seconds <= most_s or not given:
            return seconds
        remedy = "write a number and s, min, h or d, such as 30min"
        return self._wrong(name, given, "is not a duration", remedy, duration_s(default or "1h"))

    def choice(self, name: str, default: str, options: Iterable[str]) -> str:
        """One of the given words."""
        value = self._take(name, default)
        known = list(options)
        if isinstance(value, str) and value in known:
            return value
        return self._wrong(name, value, "is not known", f"use one of {', '.join(known)}", default)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; absent means empty."""
        value = self.raw(name)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        return self._wrong(name, value, "is not a list of strings", "write a list of strings", ())

    def scalars(self, name: str) -> dict[str, str | int | float | bool]:
        """A mapping of names to scalars; absent means empty."""
        value = self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return self._wrong(name, value, "is not a mapping", "write name: value pairs", {})
        kept: dict[str, str | int | float | bool] = {}
        for key, item in value.items():
            if isinstance(item, str | int | float | bool) and _NUL not in str(item):
                kept[str(key)] = item
            else:
                self.faults.add(
                    f"{self.key(name)}.{key}", item, "is not a scalar", "use a string, a number or a boolean"
                )
        return kept

    def sections(self, name: str) -> list[Section]:
        """A list of mappings; absent means empty."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            return self._wrong(name, value, "is not a list", "write a list of mappings", [])
        return [
            Section(item, faults=self.faults, path=f"{self.key(name)}[{i}]") for i, item in enumerate(value)
        ]

    def section(self, name: str) -> Section:
        """A mapping; absent means empty."""
        value = self.raw(name)
        return Section({} if value is None else value, faults=self.faults, path=self.key(name))

    def close(self) -> None:
        """Note a fault for every key that nobody read, with the nearest known name."""
        for name in self.data:
            if name not in self._read:
                close = difflib.get_close_matches(str(name), sorted(self._read), n=1)
                advice = (
                    f"did you mean {close[0]}?" if close else f"known keys: {', '.join(sorted(self._read))}"
                )
                self.faults.add(self.key(str(name)), self.data[name], "is an unknown key", advice)

    def rest(self) -> dict[str, Any]:
        """The keys that nobody read, marked as read: for formats that allow extra fields."""
        left = {str(k): v for k, v in self.data.items() if k not in self._read}
        self._read.update(left)
        return left

    def _take(self, name: str, default: object) -> Any:
        value = self.raw(name, _MISSING)
        if value is not _MISSING and not (value is None and default is not None):
            return value
        return None if default is None else default

    def _wrong(self, name: str, value: object, problem: str, remedy: str, fallback: T) -> T:
        if value is None and name not in self.data:
            self.faults.add(self.key(name), None, "is missing", remedy)
        else:
            self.faults.add(self.key(name), value, problem, remedy)
        return fallback


def duration_s(text: str) -> float:
    """The seconds in a number and its unit; 0 where it is none."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _SECONDS[match[2]] if match else 0.0


def _shown(value: object) -> str:
    if value is None:
        return ""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):  # keys that JSON does not know, such as dates; circles
        text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def json_section(path: Path) -> Section:
    """The mapping in a JSON document; its `faults` go on collecting. Raises `DocumentError`."""
    faults = Faults(file=str(path))
    section = Section(read_json_document(path, faults), faults=faults)
    faults.raise_if_any()
    return section
