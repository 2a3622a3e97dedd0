"""The lines of a file that a user wrote, one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from modelyard.core.faults import Faults


def numbered_lines(path: Path, faults: Faults) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, numbered from 1; a fault where they cannot be read as UTF-8.

    A byte order mark is passed over. A line ends at a line feed alone: what else divides lines in Unicode may
    stand within a string of JSON.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        faults.add("", None, f"is not UTF-8 text (byte {error.start})", "save it as UTF-8")
    except OSError as error:
        faults.add(
            "", None, f"cannot be read ({error.strerror})", "give the path of a file that you may read"
        )
