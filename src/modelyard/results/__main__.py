"""`python -m modelyard.results collect SPEC.json`: what a yard runs as a step of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modelyard.core.errors import ModelyardError
from modelyard.results.collect import collect, read_spec


def main(argv: Sequence[str]) -> int:
    """Run one command; 0 when both tables were written, 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.results")
    commands = parser.add_subparsers(dest="command", required=True)
    joining = commands.add_parser(
        "collect", help="join prediction files into predictions.parquet and truth.parquet"
    )
    joining.add_argument(
        "spec", type=Path, help="JSON: models [{name, path}], truth, predictions_out, truth_out"
    )
    arguments = parser.parse_args(argv)
    try:
        collected = collect(read_spec(arguments.spec))
    except ModelyardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{collected.as_json()}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
