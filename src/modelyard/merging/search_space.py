"""The space of a merge search: which values of a merge's file are free, and what a candidate makes run.

A space is a mergekit YAML whose last document has one more key, `search`: dotted keys as `--set`
takes them, each with a range or with choices, and under `start` the candidates to evaluate first. A
candidate is a value for each key; it becomes two steps, one that merges and one that measures.
Nothing here knows how candidates are chosen.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from modelyard.core.errors import DocumentError, MergeError
from modelyard.core.faults import Faults, Section
from modelyard.core.files import read_json, write_json, write_whole
from modelyard.jobs.command import render_argv, render_shell
from modelyard.jobs.step import Output, Resources, Step
from modelyard.merging.config import parse_recipes
from modelyard.merging.yaml_places import Document, assigned, read_mappings, read_text

KEY = "search"
_START = "start"
_MOST_KNOTS = 1000
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|infinity|nan)", re.IGNORECASE)

#: A coordinate of a point: a number, or the JSON text of a choice.
Coordinate = float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key that is free, from `low` to `high` or among `choices`."""

    key: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    integer: bool = False
    # Values as JSON texts; empty where the entry is a range.
    choices: tuple[str, ...] = ()
    # Dimensions of a gradient, each a knot; None is a single value.
    knots: int | None = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of its dimensions."""
        return (self.key,) if self.knots is None else tuple(f"{self.key}[{i}]" for i in range(self.knots))

    def value(self, point: Mapping[str, Coordinate]) -> Any:
        """What the key is given at a point."""
        values = [self._plain(point[name]) for name in self.dimensions]
        return values[0] if self.knots is None else values

    def coordinates(self, value: Any) -> dict[str, Coordinate]:
        """The coordinates at which the key has a value. Raises `ValueError` where it has it nowhere."""
        knots = [value] if self.knots is None else value
        if not isinstance(knots, list) or len(knots) != len(self.dimensions):
            raise ValueError(f"is not a list of {self.knots} knots")
        return {name: self._coordinate(knot) for name, knot in zip(self.dimensions, knots, strict=True)}

    def _plain(self, coordinate: Coordinate) -> Any:
        if isinstance(coordinate, str):
            return json.loads(coordinate)
        if self.integer:
            return int(coordinate)
        return self._on_grid(coordinate) if self.step else float(coordinate)

    def _coordinate(self, value: Any) -> Coordinate:
        if self.choices:
            if _json(value) not in self.choices:
                raise ValueError(f"is not among the choices {', '.join(self.choices)}")
            return _json(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("is not a number")
        if not self.low <= value <= self.high:
            raise ValueError(f"is not from {self.low:g} to {self.high:g}")
        if self.integer and value != int(value):
            raise ValueError("is not an integer")
        if self.step and not math.isclose(self._on_grid(value), value, rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(f"is not a whole number of steps of {self.step:g} above {self.low:g}")
        return int(value) if self.integer else float(value)

    def _on_grid(self, value: float) -> float:
        """The nearest value on the grid, in its shortest decimal form (0.15, not 0.15000000000000002)."""
        low, step = _decimal(self.low), _decimal(self.step or 1.0)
        return float(low + step * round((_decimal(value) - low) / step))


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What a file says may vary, and the merge in which it does."""

    path: Path
    # The file without `search`, line for line: what a candidate's assignments change.
    recipe: str
    entries: tuple[Entry, ...]
    # Points, of some dimensions or all, to be evaluated first.
    start: tuple[Mapping[str, Coordinate], ...] = ()

    def assignments(self, point: Mapping[str, Coordinate]) -> dict[str, Any]:
        """The candidate at a point: the value of every key that is free."""
        return {entry.key: entry.value(point) for entry in self.entries}


def read_space(path: Path) -> SearchSpace:
    """Read a space and hold both ends of every range against the merge that it varies.

    Raises:
        DocumentError: With every fault of the file; keys have the form `line 7: search.parameters.t`.
    """
    text, faults = read_text(path), Faults(file=str(path))
    documents = read_mappings(text, faults)
    last, own = documents[-1], Faults(file=str(path))
    section = Section(Section(last.data, faults=own).raw(KEY, {}) or {}, faults=own, path=KEY)
    entries = tuple(_entry(section.section(key), key) for key in section.data if key != _START)
    start = () if own.found else tuple(_point(part, entries) for part in section.sections(_START))
    if not entries and not own.found:
        remedy = "add search: in the last document, with keys such as parameters.t: {low: 0, high: 1}"
        own.add(KEY, None, "names nothing that may vary", remedy)
    recipe = _without_search(text, documents) if KEY in last.data else text
    if recipe is None:
        remedy = "begin a line with search: and indent what belongs to it; let no alias refer into it"
        own.add(KEY, None, "does not stand in lines of its own", remedy)
    faults.found += last.placed(own.found)
    faults.raise_if_any()
    space = SearchSpace(path=path, recipe=recipe or "", entries=entries, start=start)
    parse_recipes(space.recipe, file=str(path))
    _check_reach(space, last)
    return space


def setting_texts(assignments: Mapping[str, Any]) -> list[str]:
    """Assignments as `--set` takes them."""
    return [f"{key}={_json(value)}" for key, value in assignments.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """How the trials of one search are carried out."""

    run_dir: Path
    # The folder in which commands run and to which the paths of models are relative.
    cwd: Path
    python: str
    objective: str
    shell: bool = False
    seed: int = 0
    threads: int = 1
    # What one run of the objective needs.
    resources: Resources = Resources()
    timeout_s: float | None = None

    def folder(self, number: int) -> Path:
        """What belongs to one trial."""
        return self.run_dir / "trials" / f"{number:04d}"

    @property
    def best_folder(self) -> Path:
        """What belongs to the merge of the best."""
        return self.run_dir / "best"

    def values(self, number: int) -> dict[str, str | int]:
        """What the placeholders of the objective stand for."""
        return {"merged": str(self.folder(number) / "merged"), "trial": number, "python": self.python}

    def steps(self, number: int) -> tuple[Step, Step]:
        """The two steps of a trial: merge, then measure.

        The merged folder is no declared output: it is deleted once it has been measured, and that must
        not make the runner merge again.
        """
        folder = self.folder(number)
        merge = self._merge(f"merge/{number:04d}", folder)
        argv = (render_shell if self.shell else render_argv)(self.objective, self.values(number))
        objective = Step(
            name=f"objective/{number:04d}", argv=argv, shell=self.shell, cwd=str(self.cwd),
            needs=(merge.name,), resources=self.resources, timeout_s=self.timeout_s, seed=self.seed,
        )  # fmt: skip
        return merge, objective

    def best_step(self, out: Path) -> Step:
        """The step that merges the best into the place that was asked for."""
        return self._merge("merge/best", self.best_folder, Output(path=str(out), kind="merged"))

    def write_spec(self, folder: Path, out: Path, assignments: Mapping[str, Any]) -> None:
        """What the merging step in a folder is told; see `modelyard.merging.__main__`."""
        spec = {
            "recipe": str(self.run_dir / "recipe.yml"),
            "assignments": setting_texts(assignments),
            "out": str(out),
            "record": str(folder / "merged.json"),
            "seed": self.seed,
            "threads": self.threads,
            "overwrite": True,
        }
        write_json(folder / "spec.json", spec)

    def told_best(self) -> dict[str, Any]:
        """What the merge of the best was last told; empty before."""
        try:
            spec: dict[str, Any] = read_json(self.best_folder / "spec.json")
        except FileNotFoundError:
            return {}
        return spec

    def owns(self, out: Path) -> bool:
        """Whether this search has begun to write its output there."""
        return self.told_best().get("out") == str(out)

    def delete_merged(self, number: int) -> None:
        """Delete what a trial has merged or begun to; its small files stay."""
        folder = self.folder(number)
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)

    def write_recipe(self, space: SearchSpace) -> None:
        """The merge that all candidates vary."""
        write_whole(self.run_dir / "recipe.yml", space.recipe)

    def _merge(self, name: str, folder: Path, *outputs: Output) -> Step:
        spec = str(folder / "spec.json")
        return Step(
            name=name,
            argv=(self.python, "-m", "modelyard.merging", "merge", spec),
            cwd=str(self.cwd),
            inputs=(spec,),
            outputs=(Output(path=str(folder / "merged.json")), *outputs),
            resources=Resources(cpus=self.threads),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """One trial that has ended."""

    number: int
    assignments: Mapping[str, Any]
    # None where the trial failed; `why` then says how.
    value: float | None = None
    why: str = ""

    @property
    def state(self) -> str:
        """`complete` or `failed`."""
        return "failed" if self.value is None else "complete"

    def record(self) -> dict[str, Any]:
        """The trial as a JSON value."""
        return {**asdict(self), "state": self.state}


def best_trial(trials: Sequence[TrialResult], direction: str) -> TrialResult | None:
    """The trial with the best value; of equals the first. None where no trial has a value."""
    sign = 1.0 if direction == "minimize" else -1.0
    measured = [(sign * trial.value, trial.number, trial) for trial in trials if trial.value is not None]
    return min(measured, key=lambda each: each[:2])[2] if measured else None


def read_objective(said: str) -> float:
    """The value in what an objective printed: the last line that is a number, or JSON with `objective`.

    Raises:
        MergeError: There is no such line, or its value is not a finite number.
    """
    for line in map(str.strip, reversed(said.splitlines())):
        value = _told(line)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise MergeError(f"the objective printed {line[:80]!r}, which is not a finite number")
        return float(value)
    raise MergeError(
        'the objective printed no value; let its last line be a number, or JSON such as {"objective": 0.5}'
    )


def _told(line: str) -> Any:
    """The value that a line tells; None where it tells none."""
    if _NUMBER.fullmatch(line):
        return float(line)
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record.get("objective") if isinstance(record, dict) else None


def _entry(section: Section, key: str) -> Entry:
    """One key's range or choices; meaningless where faults were noted."""
    knots = section.integer("gradient", 2, low=2, high=_MOST_KNOTS) if section.has("gradient") else None
    section.raw("gradient")
    if section.has("choices"):
        entry = Entry(key=key, choices=_choices(section), knots=knots)
    else:
        entry = _range(section, key, knots)
    section.close()
    return entry


def _choices(section: Section) -> tuple[str, ...]:
    given = section.raw("choices")
    texts = tuple(map(_json, given)) if isinstance(given, list) else ()
    if len(texts) < 2 or len(set(texts)) < len(texts):
        problem = "is not a list of two or more different values"
        section.faults.add(section.key("choices"), given, problem, "write a list such as [0.2, 0.5, 1.0]")
    for name in ("low", "high", "step", "integer"):
        if section.has(name):
            section.faults.add(
                section.key(name), section.raw(name), "stands beside choices", "keep one of them"
            )
    return texts


def _range(section: Section, key: str, knots: int | None) -> Entry:
    before = len(section.faults.found)
    low = section.number("low", None, above=-math.inf)
    high = section.number("high", None, above=-math.inf)
    step = section.number("step", 1.0, above=0.0) if section.has("step") else None
    section.raw("step")
    integer = section.flag("integer", default=False)
    if len(section.faults.found) > before:
        return Entry(key=key)
    if low >= high:
        remedy = f"use a number above {low:g}"
        section.faults.add(section.key("high"), high, "is not above low", remedy)
    if integer and any(number % 1 for number in (low, high, step or 1)):
        section.faults.add(section.key("integer"), True, "has a bound or a step that is none", "use integers")
    if step and (_decimal(high) - _decimal(low)) % _decimal(step):
        remedy = "choose a step of which a whole number lies between low and high"
        section.faults.add(section.key("step"), step, "does not lead from low to high", remedy)
    return Entry(key=key, low=low, high=high, step=step, integer=integer, knots=knots)


def _point(section: Section, entries: Sequence[Entry]) -> dict[str, Coordinate]:
    """The point of a candidate that the file gives."""
    point: dict[str, Coordinate] = {}
    for entry in entries:
        value = section.raw(entry.key)
        if value is None:
            continue
        try:
            point |= entry.coordinates(value)
        except ValueError as error:
            remedy = "start where the search may go"
            section.faults.add(section.key(entry.key), value, str(error), remedy)
    section.close()
    return point


def _without_search(text: str, documents: Sequence[Document]) -> str | None:
    """The text with empty lines for `search`; None where these lines hold something else too."""
    last = documents[-1]
    begin = last.lines[KEY] or 1
    later = [line for key in last.data if (line := last.lines[key]) is not None and line > begin]
    lines = text.splitlines(keepends=True)
    end = min(later, default=len(lines) + 1)
    rest = "".join([*lines[: begin - 1], *("\n" for _ in range(begin, end)), *lines[end - 1 :]])
    expected = [document.data for document in documents]
    expected[-1] = {key: value for key, value in last.data.items() if key != KEY}
    try:
        found = [document.data for document in read_mappings(rest, Faults(file=""))]
    except DocumentError:
        return None
    return rest if found == expected else None


def _check_reach(space: SearchSpace, document: Document) -> None:
    """That every key is there, and that the merge can be read at both ends of every range.

    Choices are not tried: one may be possible only together with another, and a trial that cannot be
    planned fails by itself.
    """
    faults = Faults(file=str(space.path))
    for entry in space.entries:
        own = Faults(file=str(space.path))
        for value, problem, remedy in _out_of_reach(space, entry):
            own.add(f"{KEY}.{entry.key}", value, problem, remedy)
        faults.found += document.placed(own.found)
    faults.raise_if_any()


def _out_of_reach(space: SearchSpace, entry: Entry) -> Iterator[tuple[Any, str, str]]:
    ends = (entry.choices[0],) if entry.choices else (entry.low, entry.high)
    for end in ends:
        value = entry.value(dict.fromkeys(entry.dimensions, end))
        setting = setting_texts({entry.key: value})
        missing = Faults(file="")
        assigned(read_mappings(space.recipe, missing), setting, missing)
        if missing.found:
            yield None, missing.found[0].problem, missing.found[0].remedy
            return
        if entry.choices:
            return
        try:
            parse_recipes(space.recipe, file=str(space.path), assignments=setting)
        except DocumentError as error:
            for fault in error.faults:
                yield value, f"cannot be searched there: {fault.key}: {fault.problem}", fault.remedy


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _decimal(value: float) -> Decimal:
    return Decimal(repr(float(value)))
