"""`python -m modelyard.ensemble.report SPEC.json`: the report as a step of a run.

SPEC is `{"policy": path, "backtest": folder, "members": path, "title": text, "out": path}`. The folder
holds backtest.json, backtest.parquet and weights.parquet.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from modelyard.core.errors import ModelyardError
from modelyard.core.files import write_whole
from modelyard.ensemble.report.inputs import read_spec
from modelyard.ensemble.report.page import build_report


def main(argv: Sequence[str]) -> int:
    """Write the report that a spec asks for; 0, or 1 with the reason on stderr."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m modelyard.ensemble.report SPEC.json\n")
        return 2
    try:
        inputs, out = read_spec(Path(argv[0]))
        write_whole(out, build_report(inputs))
    except ModelyardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{out}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
