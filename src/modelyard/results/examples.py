"""Examples: what a model is asked, what is right, and how an answer is scored; read from JSON lines.

Two spellings are read, one or the other on each line: the set's own, and a pack's items
`{prompt_id, messages, scorer{id, version, params}, critical, cluster, weight, tags}`, whose answers and
choices stand in the params or beside them.
"""

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
#: The scorer that compares two answers, which needs no right one.
_JUDGED = "judge"
#: Fields that are part of an example's digest only where they are given.
_LATER = ("scorer_version", "tags")


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
    # The version of the scorer that the set was made for, where it names one.
    scorer_version: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What an answer is worth, from 0 to 1, and why."""

    value: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scoring:
    """How an example is scored."""

    scorer: str
    version: str | None
    options: Mapping[str, Scalar]
    answers: tuple[str, ...]
    choices: tuple[str, ...]


def read_examples(path: Path, *, pack: bool = False) -> tuple[Example, ...]:
    """The examples in a JSON-lines file, in its order.

    Args:
        path: The file.
        pack: It is made for comparing two models: where no line names a split, all are `certify`, and what
            a judge compares needs no answer.

    Raises:
        DocumentError: with every fault of the file.
    """
    faults = Faults(file=str(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        faults.add("", None, f"cannot be read ({error})", "give a UTF-8 file of JSON lines")
        lines = []
    values = {number: _value(line, number, faults) for number, line in enumerate(lines, 1) if line.strip()}
    split = "certify" if pack and not any("split" in value for value in values.values()) else SPLITS[0]
    examples: list[Example] = []
    seen: dict[str, int] = {}
    for number, value in values.items():
        example = _example(value, f"line {number}", faults, split) if value else Example(id="")
        if value and not example.answers and not (pack and example.scorer == _JUDGED):
            faults.add(f"line {number}.answers", None, "names no answer", "list at least one right answer")
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
    for name in _LATER:  # sets without them keep the digest that they had before there were any
        if not plain[name]:
            del plain[name]
    return {**plain, "options": dict(example.options)}


def _value(line: str, number: int, faults: Faults) -> Mapping[str, Any]:
    """The object on a line; empty, with a fault, where there is none."""
    place = f"line {number}"
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        faults.add(place, None, f"is not JSON ({error})", "write one JSON object a line")
        return {}
    if not isinstance(value, dict) or not value:
        faults.add(place, value, "is not an object with keys", "write one JSON object a line")
        return {}
    return value


def _example(value: Mapping[str, Any], place: str, faults: Faults, split: str) -> Example:
    section = Section(value, faults=faults, path=place)
    item = section.has("prompt_id")
    messages = tuple((each.text("role"), each.text("content")) for each in section.sections("messages"))
    scoring = _scoring(section)
    example = Example(
        id=section.text("prompt_id" if item else "id"),
        prompt=section.optional_text("prompt") or "",
        messages=messages,
        answers=scoring.answers,
        choices=scoring.choices,
        scorer=scoring.scorer,
        options=scoring.options,
        group_id=section.optional_text("cluster" if item else "group_id"),
        weight=section.number("weight", 1.0, above=0.0),
        critical=section.flag("critical", default=False),
        split=section.choice("split", split, SPLITS),
        scorer_version=scoring.version,
        tags=section.texts("tags"),
    )
    if bool(example.prompt) == bool(messages):
        faults.add(place, None, "needs either prompt or messages", "give exactly one of them")
    _check_pattern(example, place, faults)
    section.close()
    return example


def _scoring(section: Section) -> _Scoring:
    """From `scorer`, a name with `options` beside it or an object with params."""
    answers, choices = section.texts("answers"), section.texts("choices")
    if not isinstance(section.data.get("scorer"), Mapping):
        scorer, options = section.text("scorer", "exact"), section.scalars("options")
        return _Scoring(scorer=scorer, version=None, options=options, answers=answers, choices=choices)
    told = section.section("scorer")
    params = told.section("params")
    answers, choices = (*answers, *params.texts("answers")), (*choices, *params.texts("choices"))
    rest = Section({"params": params.rest()}, faults=section.faults, path=told.path)
    scoring = _Scoring(
        scorer=told.text("id"), version=told.optional_text("version"), options=rest.scalars("params"),
        answers=answers, choices=choices,
    )  # fmt: skip
    told.close()
    return scoring


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
