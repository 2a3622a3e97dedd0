"""`modelyard diff` says what differs, and by its status whether anything does."""

from __future__ import annotations

import json

from modelyard.core.faults import Faults
from modelyard.jobs.plan import make_plan
from modelyard.runs.directory import create_run


def test_two_runs_are_told_apart(call, yard, make_step, tmp_path):
    for name, script in (("one", "exit 0"), ("two", "exit 1"), ("same", "exit 0")):
        path = tmp_path / name
        plan = make_plan(name, [make_step("a", script)], run_dir=path, faults=Faults(file="f"))
        create_run(yard, path, run=name, kind="up", source="yard.yaml", plan=plan)
    here = ("--yard", str(yard.root))
    told = call("diff", "one", "two", *here)
    assert told.exit_code == 1
    assert told.output.splitlines() == [
        "--- one", "+++ two", "  a", '-   declared argv: ["exit 0"]', '+   declared argv: ["exit 1"]',
    ]  # fmt: skip
    told = call("diff", "one", "two", *here, "--json")
    assert told.exit_code == 1 and json.loads(told.output)["differences"][0]["where"] == "argv"
    told = call("diff", "one", "same", *here)
    assert told.exit_code == 0 and told.output.splitlines()[-1] == "no difference"
