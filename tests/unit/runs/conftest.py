"""Runs of small plans of real commands."""

from __future__ import annotations

import os

import pytest

from modelyard.core.faults import Faults
from modelyard.jobs.plan import make_plan
from modelyard.runs.directory import create_run
from modelyard.runs.execution import ExecutionOptions, execute


@pytest.fixture
def make_run(yard, tmp_path):
    """Creates the run of a plan."""

    def make(*steps, run="night", kind="train"):
        path = tmp_path / run
        plan = make_plan(run, steps, run_dir=path, faults=Faults(file="f"))
        return create_run(yard, path, run=run, kind=kind, source="yard.yaml", plan=plan)

    return make


@pytest.fixture
def options():
    return ExecutionOptions(slots=2, environment=dict(os.environ))


@pytest.fixture
def carry_out(yard, options):
    """Executes a run; gives its outcome and the standing of its steps."""

    def run(directory, **changed):
        import dataclasses

        outcome, progress = execute(
            yard, directory, directory.plan(), dataclasses.replace(options, **changed)
        )
        return outcome.value, {item.step.name: item.status.value for item in progress}

    return run
