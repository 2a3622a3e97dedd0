"""What is looked for in a training job's reports: the names of metrics, their spellings, and steps.

Nothing here knows where reports stand; `metric_text` reads lines of text, `metric_files` and
`event_files` read files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: Names of steps, the first of them that a report has counts: epochs only ever rise, while steps are
#: often counted anew in each epoch.
STEP_NAMES = ("epoch", "global_step", "step", "iteration", "iter")

#: A number as programs print it; thousands are grouped by commas or not at all.
NUMBER = (
    r"[+-]?(?:nan|inf(?:inity)?"
    r"|(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?"
    r"|\.[0-9]+(?:e[+-]?[0-9]+)?)"
)
_NUMBER = re.compile(rf"({NUMBER})\s*%?", re.IGNORECASE)
_JOINTS = re.compile(r"[\s/_-]+")
_SUFFIXES = ("_epoch", "_step")
#: The same word, long and short.
_PREFIXES = (("val_", "validation_"), ("val_", "valid_"), ("train_", "training_"))
#: Objects within a record whose keys are metrics like those beside them.
_TRANSPARENT = frozenset({"kpi", "metric", "metrics"})
_DEPTH = 4
_LARGEST_STEP = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reported value of one metric."""

    # As it was asked for, however it was spelled.
    name: str
    # May be nan or infinite.
    value: float
    # None where the report names none: it is the one after the last.
    step: int | None = None
    # How far the spelling, and the place, are from what was asked for; the nearest count.
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRules:
    """Which metrics are wanted, and how reports name them.

    Case does not matter, and `/`, `_`, `-` and blanks are the same. A name stands also for itself with
    `_epoch` or `_step`, and `val_x` for `Validation x`, `train_x` for `Training x`. Nothing else is taken
    for it: neither `val_loss`, `Baseline loss` nor `kpi` is the `loss`.
    """

    names: tuple[str, ...]
    steps: tuple[str, ...] = STEP_NAMES
    # Further spellings of a name.
    spellings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # Of printed lines: a regular expression with a group named `value` and perhaps one named `step`, for
    # a metric that is then looked for in no other way; the last match in a line counts.
    patterns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot work, with the reason and the remedy (ValueError)."""
        for name in self.names:
            if not canonical(name):
                raise ValueError(f"metric {name!r} has no letters or digits; give it a name")
        for name in (*self.spellings, *self.patterns):
            if name not in self.names:
                raise ValueError(f"metric {name!r} is not among those wanted: {', '.join(self.names)}")
        for name, pattern in self.patterns.items():
            _check_pattern(name, pattern)


def canonical(name: str) -> str:
    """A name without the differences that do not count."""
    return _JOINTS.sub("_", name.casefold()).strip("_")


def number(value: object) -> float | None:
    """The value as a float, if it is a number or the text of one; nan and infinity are numbers."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and (match := _NUMBER.fullmatch(value.strip())):
        return float(match[1].replace(",", ""))
    return None


class Spellings:
    """Every spelling of the wanted metrics: canonical name -> (metric, distance)."""

    def __init__(self, rules: MetricRules, names: Iterable[str] | None = None) -> None:
        self._steps = tuple(canonical(step) for step in rules.steps)
        self._by_spelling: dict[str, list[tuple[str, int]]] = {}
        for name in rules.names if names is None else names:
            for rank, spelling in enumerate(_spelled(name, rules.spellings.get(name, ()))):
                self._by_spelling.setdefault(spelling, []).append((name, rank))

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_spelling)

    def meant(self, spelling: str) -> Sequence[tuple[str, int]]:
        """The metrics that a name found stands for, with the distance."""
        return self._by_spelling.get(canonical(spelling), ())

    def in_record(self, record: Mapping[str, object]) -> tuple[list[Reading], set[str]]:
        """What a JSON object reports, and the metrics for which it names two values.

        Objects within it are read too: `{"val": {"loss": 1}}` is the `val/loss`.
        """
        step = self.step({key: value for key, value in record.items() if not isinstance(value, Mapping)})
        found = [
            Reading(name=name, value=value, step=step, rank=rank)
            for spelling, value in _leaves(record)
            for name, rank in self.meant(spelling)
        ]
        return nearest(found)

    def step(self, named: Mapping[str, object]) -> int | None:
        """The step that these values tell: of the first name that has a whole number.

        Where only decimals are told, such as 1.73 epochs, it is the whole number below.
        """
        told = {canonical(key): value for key, value in named.items()}
        values = [told[step] for step in self._steps if step in told]
        for value in values:
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_STEP:
                return value
        numbers = [n for n in map(number, values) if n is not None and 0 <= n < _LARGEST_STEP]
        return int(numbers[0]) if numbers else None


def nearest(found: Iterable[Reading]) -> tuple[list[Reading], set[str]]:
    """For each metric the reading with the nearest spelling; and the metrics for which two differ."""
    best: dict[str, Reading] = {}
    doubtful: set[str] = set()
    for reading in found:
        held = best.get(reading.name)
        if held is None or reading.rank < held.rank:
            best[reading.name] = reading
            doubtful.discard(reading.name)
        elif reading.rank == held.rank and repr(reading.value) != repr(held.value):
            doubtful.add(reading.name)
    return [reading for name, reading in best.items() if name not in doubtful], doubtful


def _spelled(name: str, further: Iterable[str]) -> list[str]:
    """The canonical spellings of a metric, the nearest first."""
    own = [canonical(name), *map(canonical, further)]
    for one, other in _PREFIXES:
        for new, old in ((one, other), (other, one)):
            own += [new + each.removeprefix(old) for each in own if each.startswith(old)]
    bare = [each for each in own if not each.endswith(_SUFFIXES)]
    suffixed = [each + suffix for suffix in _SUFFIXES for each in bare]
    stripped = [each.removesuffix(s) for each in own for s in _SUFFIXES if each.endswith(s)]
    return [each for each in dict.fromkeys((*own, *suffixed, *stripped)) if each]


def _leaves(record: Mapping[str, object], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            inside = prefix if canonical(str(key)) in _TRANSPARENT else f"{prefix}{key}/"
            if depth < _DEPTH:
                yield from _leaves(value, inside, depth + 1)
        elif (measured := number(value)) is not None:
            yield f"{prefix}{key}", measured


def _check_pattern(name: str, pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(
            f"pattern of {name!r} is no regular expression: {error}; mend {pattern!r}"
        ) from error
    if "value" not in groups:
        raise ValueError(
            f"pattern of {name!r} has no group named value; write (?P<value>...) where the number stands"
        )
