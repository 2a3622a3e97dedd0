"""Frozen sets: questions that are not changed, in splits that are opened one at a time and on record.

`fit` is what profiles and policies learn from; `certify` and `report` prove and tell, and every look at
them makes the next proof weaker. So each opening is an entry of the journal, and the entries are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelyard.core.faults import Faults
from modelyard.core.journal import Draft, Journal
from modelyard.results.examples import SPLITS, Example, read_examples, set_digest
from modelyard.results.scorers import load_scorer, scorer_names

_OPENED = "set.opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSet:
    """A set as a whole; its questions come out of `open_split` only."""

    path: Path
    # Of all examples, whatever their order; it names the set for ever.
    digest: str
    # Examples of each split.
    sizes: dict[str, int]
    examples: tuple[Example, ...] = field(repr=False)

    def sealed(self, split: str) -> tuple[Example, ...]:
        """The examples of a split for counting: its callers show nothing of them, and nothing is recorded."""
        return tuple(example for example in self.examples if example.split == split)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Who opens a split, and why."""

    split: str
    purpose: str
    models: tuple[str, ...]
    run: str


def read_frozen(path: Path, *, pack: bool = False) -> FrozenSet:
    """Read and check a set; `pack` as in `read_examples`.

    Raises:
        DocumentError: With every fault of the file.
    """
    examples = read_examples(path, pack=pack)
    _check_scorers(path, examples)
    return FrozenSet(
        path=path,
        digest=set_digest(examples),
        sizes={split: sum(each.split == split for each in examples) for split in SPLITS},
        examples=examples,
    )


def open_split(frozen: FrozenSet, journal: Journal, opening: Opening) -> tuple[Example, ...]:
    """A split's examples; the opening is in the journal before they are given.

    Raises:
        DocumentError: The split is empty.
        JournalError: It cannot be recorded.
    """
    chosen = frozen.sealed(opening.split)
    if not chosen:
        faults = Faults(file=str(frozen.path))
        told = ", ".join(f"{split} {count}" for split, count in frozen.sizes.items())
        faults.add("split", opening.split, "has no example", f"choose another one: {told}")
        faults.raise_if_any()
    data = {
        "set": str(frozen.path.absolute()),
        "set_digest": frozen.digest,
        "split": opening.split,
        "items_digest": _items_digest(chosen),
        "purpose": opening.purpose,
        "examples": len(chosen),
        "models": list(opening.models),
    }
    journal.append([Draft(kind=_OPENED, run=opening.run, data=data)])
    return chosen


def looks(journal: Journal, digest: str) -> dict[str, int]:
    """How often each split of a set was opened for something that is not the same evaluation, resumed."""
    seen = {
        (entry.data["split"], entry.run)
        for entry in journal.read()
        if entry.kind == _OPENED and entry.data["set_digest"] == digest
    }
    return {split: sum(each == split for each, _ in seen) for split in SPLITS}


def openers(journal: Journal, frozen: FrozenSet, split: str) -> list[str]:
    """The evaluations that have opened the examples of a split, in whatever set and split they stood.

    Each is named once, in the order of their first openings.
    """
    items = _items_digest(frozen.sealed(split))
    runs = (
        entry.run
        for entry in journal.read()
        if entry.kind == _OPENED
        and (
            entry.data.get("items_digest") == items
            or (entry.data["set_digest"], entry.data["split"]) == (frozen.digest, split)
        )
    )
    return list(dict.fromkeys(runs))


def _items_digest(examples: tuple[Example, ...]) -> str:
    """Of the examples wherever they stand."""
    return set_digest(tuple(replace(example, split=SPLITS[0]) for example in examples))


def _check_scorers(path: Path, examples: Sequence[Example]) -> None:
    """That each example can be scored as it says."""
    faults, known = Faults(file=str(path)), scorer_names()
    for example in examples:
        place = f"example {example.id}"
        if example.scorer not in known:
            faults.add(
                f"{place}.scorer", example.scorer, "is not installed", f"use one of {', '.join(known)}"
            )
            continue
        scorer = load_scorer(example.scorer)
        if example.scorer_version not in (None, scorer.version):
            remedy = f"install the version of {scorer.name} that the set was made for, or freeze the set anew"
            problem = f"is not the version that is installed, {scorer.version}"
            faults.add(f"{place}.scorer.version", example.scorer_version, problem, remedy)
        fault = scorer.problem(example)
        if fault:
            faults.add(place, None, *fault)
    faults.raise_if_any()
