"""A yard whose steps are shell scripts of a few milliseconds, and its watch as a program that can be killed.

Members are real commands with real files. The pool's makers are stand-ins of the same names, needs and
outputs, which copy what they are given: their own arithmetic is tested elsewhere and takes seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.clock import Clock, utc_now
from modelyard.jobs.step import Output, Step
from modelyard.lifecycle.up import Prepared, prepare_up
from modelyard.lifecycle.watching.rounds import watch
from modelyard.lifecycle.watching.standing import Scene
from modelyard.runs.execution import ExecutionOptions, Outcome
from modelyard.runs.yard import open_yard

#: Counts its calls in a file of the yard; the model is that number.
FIT = """
test ! -e "bad-$2" || exit 3
echo "$2" >> trained
grep -c "^$2$" trained > "$1/model"
"""
TELL = """
test ! -e "mute-$2" || exit 4
cat "$1/model" "$3" > "$1/predictions.csv"
"""
#: Gives its outputs, the first arguments, the content of its inputs, those after `--`.
POOL = """
test ! -e bad-pool || exit 5
outputs=""
while test "$1" != "--"; do outputs="$outputs $1"; shift; done
shift
for output in $outputs; do cat "$@" > "$output"; done
"""


def write_yard(
    folder: Path, *, retrain: Mapping[str, Mapping[str, Any]] | None = None, **changes: Any
) -> Path:
    """Write the yard: members train from `old.csv` and forecast from `new.csv`; `near` ages in 7 days."""
    wanted = {"near": {"age": "7d"}} if retrain is None else retrain
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "fit.sh": FIT,
        "tell.sh": TELL,
        "pool.sh": POOL,
        "old.csv": "1\n",
        "new.csv": "2\n",
    }.items():
        (folder / name).write_text(text)
    (folder / "truth.csv").write_text("target_time,y\n2024-01-01T00:00,1\n")
    models = [
        {
            "name": name,
            "train": "sh fit.sh {model_dir} {model_name} {old}",
            "predict": "sh tell.sh {model_dir} {model_name} {new}",
            "outputs": {"model": "{model_dir}/model", "predictions": "{model_dir}/predictions.csv"},
            **({"retrain": dict(wanted[name])} if name in wanted else {}),
        }
        for name in ("near", "far")
    ]
    document = {
        "name": "quick",
        "horizon": 1,
        "disk_gib": 0.001,
        "data": {"truth": "truth.csv", "old": "old.csv", "new": "new.csv"},
        "models": models,
        "ensemble": {"validation_until": "2024-01-01"},
        **changes,
    }
    path = folder / "yard.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def quick(prepared: Prepared) -> Prepared:
    """The same plan with the pool's makers replaced, and forecasts taken as they are."""
    steps = tuple(_quick(step, prepared) for step in prepared.plan.steps)
    return replace(prepared, plan=replace(prepared.plan, steps=steps))


def scene(path: Path, *, clock: Clock = utc_now) -> Scene:
    """What rounds over the yard in a file work on; its state is in `yard` beside the file."""
    options = ExecutionOptions(slots=2, environment=dict(os.environ))
    yard = open_yard(path.parent / "yard", create=True)
    prepared = quick(prepare_up(path, yard.runs_dir, options))
    return Scene(yard=yard, prepared=prepared, options=options, clock=clock)


def _quick(step: Step, prepared: Prepared) -> Step:
    run_dir = Path(prepared.plan.run_dir)
    if "/" in step.name:
        return replace(step, outputs=tuple(Output(path=output.path) for output in step.outputs))
    made = [output.path for output in step.outputs]
    read = {
        "collect": sorted(
            str(run_dir / "models" / m.name / "predictions.csv") for m in prepared.declaration.members
        ),
        "integrate": [str(run_dir / "tables" / "predictions.parquet")],
    }.get(step.name, [str(run_dir / "policy.json")])
    return replace(step, argv=("sh", "pool.sh", *made, "--", *read))


def main() -> int:
    """One round over a yard at a time that is given; status 0 where the policy stands."""
    path, at = Path(sys.argv[1]), sys.argv[2]
    moment = datetime.fromisoformat(at)
    rounds = list(watch(scene(path, clock=lambda: moment), every_s=1.0, rounds=1, pause=lambda *_: True))
    return 0 if rounds[-1].outcome in (Outcome.SUCCEEDED, Outcome.PARTIAL) else 1


if __name__ == "__main__":
    sys.exit(main())
