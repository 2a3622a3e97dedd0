"""Examples: what a model is asked, what is right, and how an answer is scored; read from JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.faults import Faults, Section

SPLITS = ("fit", "certify", "report")
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question of a set; either `prompt` or `messages` is given."""

    id: str
    prompt: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    scorer: str = "exact"
    options: Mapping[str, Scalar] = field(default_factory=dict)
    group_id: str | None = None
    weight: float = 1.0
    critical: bool = False
    split: str = "fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What an answer is worth, from 0 to 1, and why."""

    value: float
    why: str


def read_examples(path: Path) -> tuple[Example, ...]:
    """The examples in a JSON-lines file, in its order.

    Raises:
        DocumentError: with every fault of the file.
    """
    faults = Faults(file=str(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        faults.add("", None, f"cannot be read ({error})", "give a UTF-8 file of JSON lines")
        lines = []
    examples: list[Example] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        example = _line(line, f"line {number}", faults)
        if example.id and example.id in seen:
            place = f"line {number}.id"
            faults.add(place, example.id, f"stands on line {seen[example.id]} too", "give each its own id")
        seen.setdefault(example.id, number)
        examples.append(example)
    if not examples and not faults.found:
        faults.add("", None, "holds no example", "write one JSON object a line")
    faults.raise_if_any()
    return tuple(examples)


def set_digest(examples: tuple[Example, ...]) -> str:
    """The digest of what the examples are, whatever their order."""
    return digest_json(sorted((_plain(example) for example in examples), key=lambda each: each["id"]))


def _plain(example: Example) -> dict[str, Any]:
    plain = {name: getattr(example, name) for name in Example.__slots__}
    return {**plain, "options": dict(example.options)}


def _line(line: str, place: str, faults: Faults) -> Example:
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        faults.add(place, None, f"is not JSON ({error})", "write one JSON object a line")
        return Example(id="")
    if not isinstance(value, dict):
        faults.add(place, value, "is not an object", "write one JSON object a line")
        return Example(id="")
    section = Section(value, faults=faults, path=place)
    messages = tuple((each.text("role"), each.text("content")) for each in section.sections("messages"))
    example = Example(
        id=section.text("id"),
        prompt=section.optional_text("prompt") or "",
        messages=messages,
        answers=section.texts("answers"),
        choices=section.texts("choices"),
        scorer=section.text("scorer", "exact"),
        options=section.scalars("options"),
        group_id=section.optional_text("group_id"),
        weight=section.number("weight", 1.0, above=0.0),
        critical=section.flag("critical", default=False),
        split=section.choice("split", "fit", SPLITS),
    )
    if bool(example.prompt) == bool(messages):
        faults.add(place, None, "needs either prompt or messages", "give exactly one of them")
    if not example.answers:
        faults.add(f"{place}.answers", None, "names no answer", "list at least one right answer")
    _check_pattern(example, place, faults)
    section.close()
    return example


def _check_pattern(example: Example, place: str, faults: Faults) -> None:
    if example.scorer != "regex":
        return
    pattern, group = example.options.get("pattern"), example.options.get("group", 0)
    key = f"{place}.options"
    try:
        compiled = re.compile(pattern if isinstance(pattern, str) else "(")
    except re.error as error:
        faults.add(f"{key}.pattern", pattern, f"is not a pattern ({error})", "write a regular expression")
        return
    if group not in compiled.groupindex and group not in range(compiled.groups + 1):
        faults.add(f"{key}.group", group, "is no group of the pattern", "name one of its groups")
