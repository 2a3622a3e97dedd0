"""Checkpoints of TAO's trainings: which of the files that a job left is the one to go on from.

TAO's trainers name them by the epoch: `model_epoch_009.pth`, `epoch_3/policy`, `epoch=4-step=500.ckpt`; some
count from 0, so that what ended after three epochs is called 2. Nothing here knows an SDK.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: What a training can go on from.
SUFFIXES = (".pth", ".pth.tar", ".pt", ".ckpt", ".hdf5", ".tlt")
#: Folders of a job's results that hold what it was given.
_GIVEN = frozenset({"inputs", "ptm", "__pycache__"})
_EPOCH = re.compile(r"(?:^|[/_.-])(?:epoch|ep|best)[_=-]?(\d+)(?!\.?\d)", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)(?:\.[^.]+)?")
_FOLDER = re.compile(r"(?:epoch|step)[_-]", re.IGNORECASE)
_NEWEST = re.compile(r"latest|last|final", re.IGNORECASE)
#: nvdinov2 writes the weights of teacher and student beside what a training goes on from.
_WEIGHTS = re.compile(r"(?:teacher|student)_epoch", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A file or folder that may be gone on from."""

    path: str
    is_folder: bool = False
    # When it was written, as far as that is known.
    modified: float = 0.0

    @property
    def epoch(self) -> int | None:
        """The epoch in its name; None where there is none."""
        found = _EPOCH.findall(self.path)
        if found:
            return max(map(int, found))
        whole = _NUMBER.fullmatch(PurePosixPath(self.path).name)
        return int(whole[1]) if whole else None

    @property
    def is_newest(self) -> bool:
        """Whether its name says that it is the last one, of whatever epoch."""
        return self.epoch is None and _NEWEST.search(PurePosixPath(self.path).name) is not None


def checkpoint_of(found: Sequence[Checkpoint], *, epoch: int, folders: bool = False) -> str | None:
    """The checkpoint of a job that ended after so many epochs; None where none of them is it.

    By its name it is that of the epoch, or of the one before where epochs are counted from 0. Where no name
    tells an epoch, the one that is called the last is taken, for the job has ended.

    Args:
        found: What the job left.
        epoch: How many epochs it had behind it.
        folders: Whether a folder is preferred to a file.
    """
    named = [each for each in found if each.epoch in (epoch, epoch - 1)]
    candidates = named or [each for each in found if each.is_newest]
    best = max(candidates, key=lambda each: _rank(each, epoch=epoch, folders=folders), default=None)
    return None if best is None else best.path


def local_checkpoints(root: Path) -> list[Checkpoint]:
    """The checkpoints below a folder of this machine, without what the job was given."""
    found = []
    for where, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _GIVEN]
        place = Path(where)
        if place != root and _FOLDER.match(place.name) and (folders or files):
            found.append(Checkpoint(path=str(place), is_folder=True, modified=_modified(place)))
        named = [place / name for name in files if name.lower().endswith(SUFFIXES)]
        found += [Checkpoint(path=str(path), modified=_modified(path)) for path in named]
    return found


def listed_checkpoints(paths: Iterable[object], results: str) -> list[Checkpoint]:
    """The checkpoints that an SDK lists, relative ones below the job's place of results."""
    base = f"{results.rstrip('/')}/" if results else ""
    named = [path for path in paths if isinstance(path, str) and path.lower().endswith(SUFFIXES)]
    return [Checkpoint(path=p if "://" in p or p.startswith("/") else f"{base}{p}") for p in named]


def _rank(each: Checkpoint, *, epoch: int, folders: bool) -> tuple[bool, bool, bool, bool, float]:
    """How well it fits: the epoch, no mere weights, the kind, the place, and the newest of what is left."""
    return (
        each.epoch == epoch,
        _WEIGHTS.search(each.path) is None,
        each.is_folder == folders,
        "/checkpoints/" in each.path,
        each.modified,
    )


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it has just been deleted
        return 0.0
