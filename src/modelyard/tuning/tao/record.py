"""What the folder of a run or a session says of its search, for those who look at it from outside.

    automl.json    what is searched for, and how many recommendations there will be

It is written once the search is known to be the folder's own, and its time is that of the last write to the
search. Nothing of the settings but what a status needs is kept, so that no key of a model ever is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from modelyard.core.errors import TuneError
from modelyard.core.files import read_json, write_json
from modelyard.tuning.tao.settings import TaoSettings, Weighing
from modelyard.tuning.trial import Objective

RECORD_FILE = "automl.json"
#: The folders of a workspace: runs of `AutoMLRunner`, sessions of `AutoML`.
RUNS, SESSIONS = "run_*", "automl_*"
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord:
    """What is to be known of a search by those who did not begin it."""

    kind: Literal["run", "session"]
    algorithm: str
    objectives: tuple[Objective, ...]
    # One for each objective.
    weighing: tuple[Weighing, ...]
    # How many recommendations there will be; None where the results say it.
    trials: int | None
    # The names under which a session's specification holds the epochs of a recommendation.
    epochs: tuple[str, ...] = ()
    # What the user should know of how the arguments were taken.
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> TaoSettings:
        """The settings as far as a status needs them."""
        return TaoSettings(algorithm=self.algorithm, objectives=self.objectives, weighing=self.weighing)

    def total(self, begun: int) -> int:
        """How many recommendations there will be, of which so many are there."""
        return begun if self.trials is None else self.trials


def write_record(folder: Path, record: SearchRecord) -> None:
    """Keep the record in the folder of the search."""
    write_json(folder / RECORD_FILE, {"schema": _SCHEMA, **asdict(record)})


def read_record(folder: Path) -> SearchRecord:
    """The record in a folder.

    Raises:
        TuneError: It is damaged, or of another version.
    """
    path = folder / RECORD_FILE
    try:
        kept = dict(read_json(path))
        if kept.pop("schema", None) != _SCHEMA:
            raise ValueError(f"its schema is not {_SCHEMA}")
        return SearchRecord(**{**kept, **_read(kept)})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TuneError(
            f"{path}: is no record of a search ({error}); restore it, or resume the search, which writes it"
        ) from error


def touch(folder: Path) -> None:
    """Let it be known that the search has just been written to."""
    with contextlib.suppress(FileNotFoundError):  # somebody has taken the record away
        os.utime(folder / RECORD_FILE)


def newest(workspace: Path, kinds: Sequence[str] = (RUNS, SESSIONS)) -> Path | None:
    """The folder in a workspace whose search was written to last; None where there is no search."""
    found = [path for kind in kinds for path in workspace.glob(f"{kind}/{RECORD_FILE}")]
    written = {path.parent: path.stat().st_mtime_ns for path in found}
    return max(written, key=lambda folder: (written[folder], folder.name), default=None)


def _read(kept: dict[str, Any]) -> dict[str, Any]:
    return {
        "objectives": tuple(Objective(**each) for each in kept["objectives"]),
        "weighing": tuple(Weighing(**each) for each in kept["weighing"]),
        "epochs": tuple(kept["epochs"]), "notes": tuple(kept["notes"]),
    }  # fmt: skip
