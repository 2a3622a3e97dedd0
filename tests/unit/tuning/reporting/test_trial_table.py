"""The table of trials: what is written is what the study holds, in every format."""

from __future__ import annotations

import csv
import json

import pytest
from pyarrow import parquet

from modelyard.core.errors import TuneError
from modelyard.testing.made_studies import MadeTrial, make_study
from modelyard.tuning.reporting.trial_table import columns_of, write_table
from modelyard.tuning.spaces.domains import Choices, Vector
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Condition, Parameter, Space
from modelyard.tuning.trial import Objective, TrialState
from modelyard.tuning.view import view_study

LOSS = Objective(metric="loss", direction="minimize")
SPACE = Space([
    Parameter(name="opt", domain=Choices(options=("adam", "sgd"))),
    Parameter(name="momentum", domain=Range(low=0, high=1),
              when=(Condition(parameter="opt", values=("sgd",)),)),
    Parameter(name="betas", domain=Vector(items=(Range(low=0, high=1), Range(low=0, high=1)))),
    Parameter(name="nesterov", domain=Choices(options=(False, True))),
    Parameter(name="clip", domain=Choices(options=(1, 0.5, None)), default=1),
    Parameter(name="depth", domain=Choices(options=("auto", 3)), default="auto"),
])  # fmt: skip
TRIALS = [
    MadeTrial(values=(0.5,), source="default", curve={1: 0.9, 2: 0.5}, metrics={"accuracy": 0.8}),
    MadeTrial(values=(0.25,), assignments={"opt": "sgd", "momentum": 0.1, "nesterov": True, "clip": 0.5,
                                           "depth": 3}),
    MadeTrial(state=TrialState.PRUNED, curve={1: 2.0}, budget=9, why="stopped, at step 1"),
    MadeTrial(state=TrialState.FAILED, cause="code", why='it said "no"\nand ended',
              assignments={"clip": None}),
    MadeTrial(state=TrialState.RUNNING, parent=2),
]  # fmt: skip


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("yard") / "digits"
    make_study(run_dir, SPACE, [LOSS], TRIALS)
    return view_study(run_dir)


def test_columns_hold_what_counted(view):
    columns = columns_of(view)
    assert columns["number"] == [0, 1, 2, 3, 4]
    assert columns["state"] == ["COMPLETE", "COMPLETE", "PRUNED", "FAILED", "RUNNING"]
    assert columns["objective.loss"] == [0.5, 0.25, None, None, None]
    assert columns["metric.accuracy"] == [0.8, None, None, None, None]
    assert columns["param.momentum"] == [None, 0.1, None, None, None]
    assert columns["param.betas"][0] == "[0.5, 0.5]"
    assert columns["param.clip"] == [1.0, 0.5, 1.0, None, 1.0]
    assert columns["param.depth"] == ['"auto"', "3", '"auto"', '"auto"', '"auto"']
    assert (columns["last_step"], columns["last_value"]) == (
        [2, None, 1, None, None],
        [0.5, None, 2.0, None, None],
    )
    assert (columns["parent"][4], columns["budget"][2], columns["cause"][3]) == (2, 9, "code")
    assert [s is None for s in columns["seconds"]] == [False, False, False, False, True]


def test_csv_has_one_row_a_trial_and_keeps_every_letter(view, tmp_path):
    write_table(view, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert rows[3]["why"] == 'it said "no"\nand ended' and rows[2]["why"] == "stopped, at step 1"
    assert [row["param.nesterov"] for row in rows] == ["false", "true", "false", "false", "false"]
    assert (rows[1]["objective.loss"], rows[2]["objective.loss"]) == ("0.25", "")


def test_parquet_has_the_same_columns_with_their_types(view, tmp_path):
    write_table(view, tmp_path / "trials.parquet")
    table = parquet.read_table(tmp_path / "trials.parquet")
    assert table.to_pydict() == columns_of(view)
    types = {
        name: str(table.schema.field(name).type) for name in ("number", "objective.loss", "param.nesterov")
    }
    assert types == {"number": "int64", "objective.loss": "double", "param.nesterov": "bool"}


def test_json_has_whole_curves(view, tmp_path):
    write_table(view, tmp_path / "trials.json")
    records = json.loads((tmp_path / "trials.json").read_text())
    assert records == [each.record() for each in view.trials]
    assert records[0]["curve"] == [[1, 0.9], [2, 0.5]]


def test_an_empty_study_is_a_table_without_rows(tmp_path):
    make_study(tmp_path / "empty", SPACE, [LOSS], [])
    for suffix in (".csv", ".parquet", ".json"):
        write_table(view_study(tmp_path / "empty"), tmp_path / f"trials{suffix}")
    assert parquet.read_table(tmp_path / "trials.parquet").num_rows == 0
    assert (tmp_path / "trials.csv").read_text().startswith("number,state,")


def test_other_files_are_refused(view, tmp_path):
    with pytest.raises(TuneError, match=r"does not end in \.csv or \.parquet or \.json; give such a path"):
        write_table(view, tmp_path / "trials.xlsx")
    with pytest.raises(TuneError, match="is not a folder; make it"):
        write_table(view, tmp_path / "nowhere" / "trials.csv")
