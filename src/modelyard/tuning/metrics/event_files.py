"""TensorBoard's event files below a folder, read by TensorBoard's own library while they grow.

A value is known by its tag. Where several folders hold files, the last folder's name may stand before the
tag: `train/loss` and `validation/loss` are told apart so. A tag alone is read in the first folder that has
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.tuning.metrics.rules import MetricRules, Reading, Spellings, nearest

#: A tag without its folder is farther than any spelling with it.
_WITHOUT_FOLDER = 100


class EventFolder:
    """Scalars in the event files below a folder. To be used in one thread."""

    def __init__(self, folder: Path, rules: MetricRules) -> None:
        self.folder = folder
        self._spellings = Spellings(rules)
        self._loaders: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._sizes: dict[Path, int] = {}
        # Where a metric that is named by its tag alone is read.
        self._homes: dict[str, Path] = {}
        self._notes: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed that a person may have to know."""
        return tuple(self._notes)

    def poll(self) -> list[Reading]:
        """The readings that are new.

        Raises:
            TuneError: There are event files, and tensorboard is not installed.
        """
        readings: list[Reading] = []
        for path in sorted(self.folder.rglob("*tfevents*")):
            if path.is_file():
                for event in self._new_events(path):
                    readings += self._read(event, path.parent)
        return readings

    def _new_events(self, path: Path) -> Iterator[Any]:
        """What was not read yet of a file; of another file of its name, all."""
        status = path.stat()
        identity, size = (status.st_dev, status.st_ino), self._sizes.get(path, 0)
        if path not in self._loaders or self._loaders[path][0] != identity or status.st_size < size:
            if path in self._loaders:
                self._note(f"{path}: was written anew after {size} bytes; it was read again from its start")
            self._loaders[path] = (identity, _loader(path))
            size = 0
        if status.st_size > size:
            self._sizes[path] = status.st_size
            yield from self._loaders[path][1].Load()

    def _read(self, event: Any, folder: Path) -> list[Reading]:
        found = []
        for value in event.summary.value:
            full = f"{folder.name}/{value.tag}"
            named = [(name, rank, True) for name, rank in self._spellings.meant(full)]
            named += [
                (name, rank + _WITHOUT_FOLDER, False) for name, rank in self._spellings.meant(value.tag)
            ]
            for name, rank, with_folder in named:
                measured = _scalar(value)
                if measured is not None and (with_folder or self._is_home(name, folder)):
                    found.append(Reading(name=name, value=measured, step=int(event.step), rank=rank))
        return nearest(found)[0]

    def _is_home(self, name: str, folder: Path) -> bool:
        home = self._homes.setdefault(name, folder)
        if home != folder:
            self._note(
                f"{self.folder}: {name} is in {home.name} and in {folder.name}, and was read in the first; "
                f"name it {home.name}/{name} or {folder.name}/{name}"
            )
        return home == folder

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)


def _loader(path: Path) -> Any:
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    except ImportError as error:
        raise TuneError(
            f"{path}: needs {error.name} to be read; pip install 'modelyard[tensorboard]', or tell metrics "
            "another way"
        ) from error
    return EventFileLoader(str(path))


def _scalar(value: Any) -> float | None:
    """The value if it is one number; the library gives every scalar as a tensor."""
    from tensorboard.util.tensor_util import make_ndarray

    if not value.HasField("tensor"):
        return None
    array = make_ndarray(value.tensor)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiu" else None
