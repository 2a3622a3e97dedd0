"""`python -m modelyard.tuning.tao PLAN.json --platform NAME`: carry out a plan of TAO AutoML.

The result is printed as JSON. Status 1 and the reason on standard error where there is none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from modelyard.core.faults import json_section
from modelyard.core.verbs import exit_status
from modelyard.tuning.tao.automl_plan import PLATFORMS, run_automl_plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out the plan; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.tuning.tao", description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--platform", required=True, choices=sorted(PLATFORMS))
    chosen = parser.parse_args(arguments)
    return exit_status(lambda: _told(chosen.plan, chosen.platform))


def _told(plan: Path, platform: str) -> None:
    result = run_automl_plan(json_section(plan).data, platform)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
