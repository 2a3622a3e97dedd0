"""`python -m modelyard.evaluation SPEC.json`: a step of a run that asks a model a part of its questions.

Killed, it goes on where it was; asked to stop, it waits for what is under way. Status 1 and the reason on
standard error when the model cannot be asked to the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modelyard.core.signals import caught_signals
from modelyard.core.verbs import exit_status
from modelyard.evaluation.interview import Surroundings
from modelyard.evaluation.shards import ask_shard


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.evaluation", description=__doc__)
    parser.add_argument("spec", type=Path)
    chosen = parser.parse_args(arguments)
    return exit_status(lambda: _ask(chosen.spec))


def _ask(spec: Path) -> None:
    with caught_signals() as caught:
        around = Surroundings(environment=dict(os.environ), stop=lambda: caught[0] if caught else "")
        asked = ask_shard(spec, around)
    sys.stdout.write(f"{asked} questions asked\n")


if __name__ == "__main__":
    sys.exit(main())
