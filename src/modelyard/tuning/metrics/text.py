"""One line of text that a training job printed, and the metrics it reports.

A name counts only where a field begins: at the start of the line, after a number, a bracket or a comma, or
after words that say nothing (`INFO`, `Epoch 3`, `results`). So `Baseline loss: 0.01` is no loss, and
`Validation loss` is the `val_loss`. A number counts only if it is one to its end: `12ms`, `3.2e`, `9/10` and
`0,5` are none. What cannot be told for sure is left out, and shown to whoever asks why nothing was found.

Pure functions of the line; how lines come about is the concern of `metrics`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelyard.tuning.metrics.rules import (
    NUMBER,
    MetricRules,
    Reading,
    Spellings,
    canonical,
    nearest,
    number,
)

#: What may not follow a number: more of a word, of a date, of a ratio, of a decimal with a comma.
_ENDS = r"(?!\w|[.,:]\.?[0-9]|[-+/]\.?\w|\s*/\s*[0-9])"
#: A number as it stands in a line, or inside `tensor(...)` and `float64(...)`.
_VALUE = rf"(?:[a-z_.]*(?:tensor|float[0-9]*|array)\(\s*)?(?P<value>{NUMBER}){_ENDS}"
_BEGINS = r"(?<![\w/.@-])"
_JOINT = r"(?:[_/-]|\s+)"
#: Escape sequences: colours and cursor moves, titles, and single ones.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")

_LEVEL = r"(?:debug|info|warn|warning|error|critical|fatal|notice|trace)"
_LEVELS = re.compile(_LEVEL, re.IGNORECASE)
#: Words that may stand between the start of a field and the name, and mean nothing for it.
_SILENT = re.compile(
    r"(?:metrics?|results?|stats|logs?|report|reported|done|finished|completed?|ended|with|and|has|after"
    r"|(?:rank|worker|gpu|node|process|epoch|step|iter)[-_]?[0-9]*)",
    re.IGNORECASE,
)
#: The same for steps, which belong to whatever is reported.
_SILENT_FOR_STEPS = re.compile(
    rf"(?:{_SILENT.pattern}|train|training|val|valid|validation|eval|evaluation|test|testing|sft|for|at|in|on"
    r"|of|the|current|end|global|start|starting|begin|beginning)",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"[,;)\]}\t]")
_BETWEEN_WORDS = re.compile(r"""[\s:|│=<>*#•"'{(\[–—-]+""")
_STARTS_NUMBER = re.compile(r"[+-]?\.?[0-9]|(?:nan|inf)\b", re.IGNORECASE)
#: Times, brackets, `INFO:root:` and `trainer - INFO -` at the start of a line.
_PREFIX = re.compile(
    rf"(?:\s+|\[[^\]]*\]:?|[0-9][0-9:.,TZ/+-]*(?=\s)|{_LEVEL}(?::[\w.]+:|\b)"
    rf"|[\w.]+(?:\s*[-|:]\s*|\s+){_LEVEL}\b|[-|:>]+(?=\s))*",
    re.IGNORECASE,
)
#: Words at the start that say what the whole line is about: `Train: loss 0.3, acc 0.9`. A name and a
#: value, or a number, must follow, lest `loss: nan` and `status: running` be taken for such.
_SECTION = re.compile(
    r"(?P<words>[^\W\d]+(?: [^\W\d]+)*)\s*(?:[:|│]|\s[–—-])\s+"
    rf"""(?=["'{{]|[^\W\d][\w/.@-]*(?: [^\W\d]+)*(?:\s*[:=]|\s+{NUMBER}))""",
    re.IGNORECASE,
)
#: After `accuracy 0.9`, without a colon: what shows that the number was the value.
_AFTER_BARE = re.compile(
    rf"\s*%?\s*(?:$|[,;|│(\[)\]}}]|[-–—]\s|(?:at|for|in|on|after|and)\s|[^\W\d][\w/.@-]*\s*[:=]?\s*{NUMBER})",
    re.IGNORECASE,
)
_WINDOW = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one line tells."""

    readings: tuple[Reading, ...] = ()
    # Whether it may mean a wanted metric, but not for sure.
    doubtful: bool = False


class LineGrammar:
    """Reads lines for certain metrics."""

    def __init__(self, rules: MetricRules) -> None:
        self._first_step = next(iter(rules.steps), "step")
        self._patterns = {name: re.compile(pattern) for name, pattern in rules.patterns.items()}
        self._spellings = Spellings(rules, [name for name in rules.names if name not in rules.patterns])
        spelled, steps = _alternatives(self._spellings), _alternatives(map(canonical, rules.steps))
        # Cheap, for the many lines that have nothing to do with it; a record may spell a name in two places.
        self._known = re.compile(rf"{_BEGINS}(?:{spelled})(?!\w)[^0-9]{{0,24}}[0-9]?|\{{", re.IGNORECASE)
        self._wanted = re.compile(
            rf"""{_BEGINS}(?P<quote>["'])?(?P<name>{spelled})(?(quote)(?P=quote))(?![\w/@-])"""
            rf"(?:(?P<sign>\s*[:=]+>?\s*)|\s*[|│]\s*(?={NUMBER}\s*[|│])|\s+){_VALUE}",
            re.IGNORECASE,
        )
        self._step = re.compile(
            rf"""{_BEGINS}["']?(?P<name>{steps})["']?(?![\w@-])\s*[:=#]?\s*[\[(]?\s*"""
            r"(?P<value>[0-9][0-9,]{0,20}(?:\.[0-9]+)?)(?![\w%]|\.[0-9]|\s*%)",
            re.IGNORECASE,
        )

    def read(self, text: str) -> Told:
        """What a whole line tells; escape sequences in it are skipped."""
        text = _ESCAPES.sub("", text)
        readings = [r for name, pattern in self._patterns.items() for r in self._matched(name, pattern, text)]
        known = self._known.search(text)
        if known is None:
            return Told(readings=tuple(readings))
        found, doubted = self._in_record(text) or self._in_text(text)
        near = not found and known[0][-1:].isdigit()
        return Told(readings=(*readings, *found), doubtful=doubted or near)

    def _matched(self, name: str, pattern: re.Pattern[str], text: str) -> Iterable[Reading]:
        for match in reversed(list(pattern.finditer(text))):
            value = number(match["value"])
            if value is not None:
                named = match["step"] if "step" in pattern.groupindex else None
                step = self._spellings.step({self._first_step: number(named)})
                return [Reading(name=name, value=value, step=self._step_in(text) if step is None else step)]
        return ()

    def _in_record(self, text: str) -> tuple[list[Reading], bool] | None:
        """What a line tells that is a JSON object or Python's dict, perhaps after a few words."""
        start = text.find("{")
        if start < 0 or not text.rstrip().endswith("}"):
            return None
        record = _record(text[start:].strip())
        if record is None or not _begins_field(text, start, _SILENT_FOR_STEPS):
            return None
        found, doubtful = self._spellings.in_record(record)
        step = self._step_in(text[:start])
        told = [_at(reading, step) for reading in found]
        return told, bool(doubtful)

    def _in_text(self, text: str) -> tuple[list[Reading], bool]:
        step, about = self._step_in(text), _section(text)
        found, doubtful = [], False
        for match in self._wanted.finditer(text):
            value = number(match["value"])
            bare = match["sign"] is None and not _AFTER_BARE.match(text, match.end())
            if value is None or bare or about or not _begins_field(text, match.start(), _SILENT):
                doubtful = True
                continue
            for name, rank in self._spellings.meant(match["name"]):
                found.append(Reading(name=name, value=value, step=step, rank=rank))
        readings, twice = nearest(found)
        return readings, bool(twice) or (doubtful and not readings)

    def _step_in(self, text: str) -> int | None:
        told: dict[str, object] = {}
        for match in self._step.finditer(text):
            name = canonical(match["name"])
            if name not in told and _begins_field(text, match.start(), _SILENT_FOR_STEPS):
                digits = match["value"].replace(",", "")
                told[name] = float(digits) if "." in digits else int(digits)
        return self._spellings.step(told) if told else None


def _alternatives(spellings: Iterable[str]) -> str:
    """A pattern for any of these canonical names, however their words are joined."""
    words = sorted({s for s in spellings if s}, key=lambda s: (-len(s), s))
    return "|".join(_JOINT.join(map(re.escape, each.split("_"))) for each in words) or r"(?!)"


def _record(text: str) -> Mapping[str, object] | None:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        if "\\" in text:  # Python warns of escapes that it does not know
            return None
        try:
            read = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return {str(key): value for key, value in read.items()} if isinstance(read, dict) else None


def _at(reading: Reading, step: int | None) -> Reading:
    if reading.step is not None or step is None:
        return reading
    return Reading(name=reading.name, value=reading.value, step=step, rank=reading.rank)


def _begins_field(text: str, at: int, silent: re.Pattern[str]) -> bool:
    """Whether a field begins here."""
    window = text[max(0, at - _WINDOW) : at]
    ends = [match.end() for match in _CLOSING.finditer(window)]
    for word in reversed(_BETWEEN_WORDS.split(window[ends[-1] if ends else 0 :])):
        if _STARTS_NUMBER.match(word) or _LEVELS.fullmatch(word):
            return True
        if word and not silent.fullmatch(word):
            # `INFO:root:` at the very start names a logger.
            return at <= _WINDOW and _PREFIX.fullmatch(text, 0, at) is not None
    return True


def _section(text: str) -> bool:
    """Whether words at the start say that the whole line is about something else."""
    match = _SECTION.match(text, _PREFIX.match(text).end())  # type: ignore[union-attr]
    if match is None:
        return False
    return not all(_SILENT.fullmatch(w) or _LEVELS.fullmatch(w) for w in match["words"].split())
