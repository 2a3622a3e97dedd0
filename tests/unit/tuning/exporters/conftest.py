"""What every exporter's tests begin with: a study in a folder, and the command over one in a yard."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from tests.unit.tuning.exporters.digits import LOSS, SPACE, TRIALS

from modelyard.cli.main import cli
from modelyard.jobs.plan import Plan
from modelyard.runs.directory import create_run
from modelyard.runs.yard import open_yard
from modelyard.testing.made_studies import make_study
from modelyard.tuning.view import view_study


@pytest.fixture
def study(tmp_path):
    """Makes a study in the folder of the test, or adds trials to it; and reads it."""

    def make(trials=TRIALS, name="digits", space=SPACE, objectives=(LOSS,)):
        make_study(tmp_path / name, space, objectives, trials)
        return view_study(tmp_path / name)

    return make


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls `modelyard tune export digits` in the folder of the test, whose yard has the study as a run."""
    monkeypatch.chdir(tmp_path)
    yard = open_yard(tmp_path / ".modelyard", create=True)
    run_dir = tmp_path / ".modelyard" / "runs" / "digits"
    plan = Plan(name="digits", run_dir=str(run_dir), steps=())
    create_run(yard, run_dir, run="digits", kind="tune", source="tune.yaml", plan=plan)
    make_study(run_dir, SPACE, [LOSS], TRIALS)

    def export(*arguments, name="digits"):
        return CliRunner().invoke(cli, ["tune", "export", name, *arguments])

    return export
