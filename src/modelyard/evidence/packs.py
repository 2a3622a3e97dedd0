"""Packs: frozen sets that two models are compared on, whose splits wear out by being looked at.

Whoever changes a model until it passes has fitted it to the pack. So a split is retired after some looks;
the same certificate, resumed, is the same look, and an evaluation is a look like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.digests import canonical_json
from modelyard.core.errors import EvidenceError
from modelyard.core.journal import Journal
from modelyard.evaluation.frozen_sets import FrozenSet, Opening, open_split, openers, read_frozen
from modelyard.results.examples import Example

#: Looks after which a split is retired, unless somebody says otherwise.
RETIRED_AFTER = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A split that was opened: its items, and the place of this look among all, the first being 1."""

    items: tuple[Example, ...]
    number: int
    retired_after: int


def read_pack(path: Path) -> FrozenSet:
    """Read and check a pack, in the spelling of frozen sets or of packs; without splits all is `certify`.

    Raises:
        DocumentError: With every fault of the file.
    """
    return read_frozen(path, pack=True)


def open_pack(pack: FrozenSet, journal: Journal, opening: Opening, *, retired_after: int) -> Look:
    """Look at a split; the look is in the journal before the items are given.

    Raises:
        EvidenceError: The split is retired.
        DocumentError: The split is empty.
        JournalError: It cannot be recorded.
    """
    before = openers(journal, pack, opening.split)
    if opening.run not in before and len(before) >= retired_after:
        raise EvidenceError(
            f"{pack.path}: {opening.split} has been looked at {len(before)} times and is retired after "
            f"{retired_after}; freeze a new pack of items that nothing was chosen by"
        )
    items = open_split(pack, journal, opening)
    number = [*before, opening.run].index(opening.run) + 1
    return Look(items=items, number=number, retired_after=retired_after)


def snapshot(items: tuple[Example, ...]) -> bytes:
    """The items as a pack of their own: canonical JSON lines, sorted by id."""
    lines = (canonical_json(_item(item)) for item in sorted(items, key=lambda each: each.id))
    return b"".join(line + b"\n" for line in lines)


def _item(item: Example) -> dict[str, Any]:
    version = {} if item.scorer_version is None else {"version": item.scorer_version}
    asked = {"messages": [{"role": role, "content": content} for role, content in item.messages]}
    return {
        "prompt_id": item.id,
        **(asked if item.messages else {"prompt": item.prompt}),
        "answers": list(item.answers),
        "choices": list(item.choices),
        "scorer": {"id": item.scorer, **version, "params": dict(item.options)},
        "critical": item.critical,
        "cluster": item.group_id,
        "weight": item.weight,
        "tags": list(item.tags),
        "split": item.split,
    }
