"""What a layout of heads is: how a folder of it is recognised, read and written.

Layouts differ in file names, in the names of tensors, and in whether heads have projections of their own.
What a layout cannot hold is refused by name; what it holds otherwise than one may think is said in a note.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.model import Heads


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class BaseFacts:
    """What has to be known of a base to read and write heads of it."""

    # Its output projection, [vocabulary, hidden].
    projection_vh: torch.Tensor
    fingerprint: str
    # How files name it: a folder or a repository.
    name: str

    @classmethod
    def of(cls, base: Base, *, name: str = "") -> BaseFacts:
        """Those of an open base; by default its folder names it."""
        return cls(
            projection_vh=base.projection_vh, fingerprint=base.fingerprint, name=name or str(base.folder)
        )

    @property
    def vocab_size(self) -> int:
        """The rows of the projection."""
        return int(self.projection_vh.shape[0])

    @property
    def hidden_size(self) -> int:
        """The width of the projection."""
        return int(self.projection_vh.shape[1])


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Found:
    """Heads as they were read from a folder."""

    heads: Heads
    # What is odd about the folder, for people.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to lay out heads in a folder."""

    name: str
    # What reads it.
    about: str
    # Whether a folder is of this layout, given its config.json; never raises.
    recognises: Callable[[Path, Mapping[str, Any]], bool]
    # Raises HeadsError or CheckpointError where the folder is damaged or does not fit the base.
    read: Callable[[Path, BaseFacts], Found]
    # Writes into a folder that exists, the config last; gives notes. Raises HeadsError for what does not fit.
    write: Callable[[Heads, Path, BaseFacts], tuple[str, ...]]


def whole_projections(heads: Heads, base: BaseFacts, *, layout: str) -> tuple[list[torch.Tensor], list[str]]:
    """A projection to the whole vocabulary for each head, and what is to be said of it.

    Raises:
        HeadsError: The heads have projections of their own to some of the tokens only.
    """
    config = heads.config
    if config.projection == "own":
        if config.shortlisted:
            raise HeadsError(
                f"these heads have weights of their own for {config.drafted} of {config.vocab_size} tokens,"
                f" and the layout {layout} has no shortlist for them: the others have no weights; train heads"
                " with a shared projection or without a shortlist"
            )
        return [heads.projection(k).detach() for k in range(config.heads)], []
    notes = [f"the base's projection is written {config.heads} times, once for each head"]
    if config.shortlisted:
        notes.append(shortlist_dropped(heads))
    return [base.projection_vh.detach()] * config.heads, notes


def shortlist_dropped(heads: Heads) -> str:
    """The note on heads that are written without their shortlist."""
    return (
        f"the shortlist of {heads.config.drafted} tokens is dropped: all {heads.config.vocab_size} can be"
        " drafted, and the projection costs more"
    )
