"""`python -m modelyard.results collect SPEC.json`: what a yard runs as a step of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modelyard.core.verbs import exit_status
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
    return exit_status(lambda: sys.stdout.write(f"{collect(read_spec(arguments.spec)).as_json()}\n"))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
