"""What `python -m modelyard.ROOM` does: carry out a verb, and tell by the exit status whether it could.

A step of a run is such a process: status 0 when its work is done, 1 with the reason on standard error when
it cannot be, 2 when it was called wrongly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modelyard.core.errors import ModelyardError


def exit_status(work: Callable[[], object]) -> int:
    """Do the work: 0, or 1 with the reason on standard error where an error of ours tells one."""
    try:
        work()
    except ModelyardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def carry_out(
    arguments: Sequence[str] | None, verbs: Mapping[str, Callable[[Path], object]], *, room: str, about: str
) -> int:
    """`python -m modelyard.ROOM VERB SPEC.json`; the exit status.

    Args:
        arguments: Of the command line; None takes the process's own.
        verbs: What each does with the path of its specification.
        room: The package under `modelyard`.
        about: What its help says.
    """
    parser = argparse.ArgumentParser(prog=f"python -m modelyard.{room}", description=about)
    parser.add_argument("verb", choices=tuple(verbs))
    parser.add_argument("spec", type=Path)
    chosen = parser.parse_args(arguments)
    return exit_status(lambda: verbs[chosen.verb](chosen.spec))
