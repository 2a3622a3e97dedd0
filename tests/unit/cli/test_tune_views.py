"""`modelyard tune plot`, `report` and `export`, on studies in real storage."""

from __future__ import annotations

import csv
import json
from typing import get_args

import pytest

from modelyard.cli.tune.plot import _KINDS
from modelyard.core.errors import RunNotFound, TuneError
from modelyard.jobs.plan import Plan
from modelyard.runs.directory import create_run
from modelyard.runs.yard import open_yard
from modelyard.testing.made_studies import MadeTrial, make_study
from modelyard.tuning.reporting.pictures import KINDS, Kind
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Parameter, Space
from modelyard.tuning.trial import Objective, TrialState

LOSS = Objective(metric="loss", direction="minimize")
SPACE = Space([Parameter(name=name, domain=Range(low=0, high=1)) for name in ("a", "b")])
TRIALS = [
    MadeTrial(values=(1.0,), source="default", curve={1: 2.0, 2: 1.0}),
    *(MadeTrial(values=(k / 10,), assignments={"a": k / 10, "b": (k * 7 % 10) / 10}) for k in range(1, 9)),
    MadeTrial(state=TrialState.FAILED, cause="code", why="it broke"),
]


@pytest.fixture
def study(tmp_path):
    """Makes a run of a study in the yard of the test's folder."""

    def make(name, trials=TRIALS):
        yard = open_yard(tmp_path / ".modelyard", create=True)
        run_dir = tmp_path / ".modelyard" / "runs" / name
        plan = Plan(name=name, run_dir=str(run_dir), steps=())
        create_run(yard, run_dir, run=name, kind="tune", source="tune.yaml", plan=plan)
        make_study(run_dir, SPACE, [LOSS], trials)
        return run_dir

    return make


def test_the_command_knows_every_kind_of_picture():
    assert _KINDS == KINDS == get_args(Kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pareto"])
def test_a_picture_of_each_kind(call, study, tmp_path, kind):
    study("digits")
    made = call("tune", "plot", "digits", "--kind", kind, "--out", "out.png")
    assert (made.exit_code, made.output) == (0, f"out.png: {kind}\n"), made.exception
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_history_is_drawn_where_nothing_is_said_and_a_beginning_names_a_study(call, study, tmp_path):
    study("digits-2024")
    study("letters")
    assert call("tune", "plot", "dig", "--out", "out.svg").output == "out.svg: history\n"
    assert "best so far" in (tmp_path / "out.svg").read_text()


def test_the_report_is_written_and_what_was_learnt_is_told(call, study, tmp_path):
    study("digits")
    made = call("tune", "report", "digits", "--out", "report.html")
    assert made.exit_code == 0, made.exception
    assert "Trial 1 is best: its loss is 0.1, against 1 of the default configuration" in made.output
    assert "1 of 10 trials failed: 1 code." in made.output
    html = (tmp_path / "report.html").read_text()
    assert html.startswith("<!doctype html>") and "Study digits" in html
    told = json.loads(call("tune", "report", "digits", "--out", "report.html", "--json").output)
    assert (told["study"], told["file"]) == ("digits", "report.html")
    assert all(sentence in made.output for sentence in told["learnt"])


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_the_trials_are_exported(call, study, tmp_path, suffix):
    study("digits")
    made = call("tune", "export", "digits", "--out", f"trials.{suffix}")
    assert (made.exit_code, made.output) == (0, f"trials.{suffix}: 10 trials\n"), made.exception
    told = call("tune", "export", "digits", "--out", "trials.csv", "--json")
    assert json.loads(told.output) == {"study": "digits", "file": "trials.csv", "trials": 10}
    with (tmp_path / "trials.csv").open(newline="") as file:
        assert [row["param.a"] for row in csv.DictReader(file)][1:3] == ["0.1", "0.2"]


def test_a_storage_elsewhere_is_read_by_its_url(call, study, tmp_path):
    run_dir = study("digits")
    (run_dir / "study.db").rename(tmp_path / "elsewhere.db")
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    assert call("tune", "export", "digits", "--out", "t.csv", "--storage", url).output == "t.csv: 10 trials\n"
    assert isinstance(call("tune", "export", "digits", "--out", "t.csv").exception, TuneError)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("plot", "digits", "--out", "x.pdf"), TuneError, "does not end in .png or .svg"),
        (("plot", "digits", "--out", "x.png", "--kind", "pareto"), TuneError, "it has one objective"),
        (("report", "digits", "--out", "x.pdf"), TuneError, "does not end in .html"),
        (("export", "digits", "--out", "x.xlsx"), TuneError, "does not end in .csv or .parquet or .json"),
        (("report", "other", "--out", "x.html"), RunNotFound, "'other' is not a run"),
    ],
)
def test_what_cannot_be_made_leaves_no_file(call, study, tmp_path, arguments, error, words):
    study("digits")
    refused = call("tune", *arguments)
    assert isinstance(refused.exception, error) and words in str(refused.exception)
    assert list(tmp_path.glob("x.*")) == []
