"""`python -m modelyard.merging merge SPEC.json`: a step of a run that merges checkpoints.

SPEC.json names the recipe, the values to replace in it, and where to write. A merge that was killed
is taken up again; one that is there already is left alone. Status 1 and the reason on standard error
when the work cannot be done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.digests import digest_json
from modelyard.core.faults import json_section
from modelyard.core.files import write_json
from modelyard.core.verbs import carry_out
from modelyard.merging.chain import run_chain
from modelyard.merging.config import read_recipes
from modelyard.merging.engine import MergeOptions, read_record

SCHEMA = "modelyard.merged/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a step is told."""

    recipe: Path
    # Values to replace in the recipe, as `--set` takes them.
    assignments: tuple[str, ...]
    out: Path
    # Where to write what was made; the step's sign that it is done.
    record: Path
    options: MergeOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status."""
    verbs = {"merge": lambda path: merge(read_spec(path))}
    return carry_out(arguments, verbs, room="merging", about=__doc__)


def read_spec(path: Path) -> Spec:
    """Read SPEC.json; paths are relative to the working directory.

    Raises:
        DocumentError: With every fault of the file.
    """
    section = json_section(path)
    spec = Spec(
        recipe=Path(section.text("recipe")),
        assignments=section.texts("assignments"),
        out=Path(section.text("out")),
        record=Path(section.text("record")),
        options=MergeOptions(
            seed=section.integer("seed", 0, low=0),
            threads=section.integer("threads", 1, low=1),
            overwrite=section.flag("overwrite", default=False),
            resume=True,
        ),
    )
    section.close()
    section.faults.raise_if_any()
    return spec


def merge(spec: Spec) -> None:
    """Carry out the merge and write what was made; `tensors` is the digest of all their checksums."""
    recipes = read_recipes(spec.recipe, assignments=spec.assignments)
    plan, result = run_chain(recipes, spec.out, spec.options, file=str(spec.recipe), folder=Path())
    record = {
        "schema": SCHEMA,
        "out": str(result.out),
        "method": plan.method.name,
        "bytes": result.bytes,
        "tensors": digest_json(read_record(result.out)["tensors"]),
        "warnings": list(result.warnings),
    }
    write_json(spec.record, record)


if __name__ == "__main__":
    sys.exit(main())
