from __future__ import annotations

import json
import math

import pytest

from modelyard.core.errors import DocumentError
from modelyard.ensemble.elpa_config import read_elpa_config


def write(folder, models, **fields):
    path = folder / "integrate.json"
    path.write_text(json.dumps({**fields, "models": models}))
    return path


def faults_of(folder, models, **fields):
    with pytest.raises(DocumentError) as caught:
        read_elpa_config(write(folder, models, **fields))
    return [(fault.key, fault.problem) for fault in caught.value.faults]


def test_the_public_format_is_read_with_its_defaults(tmp_path):
    (tmp_path / "errors").mkdir()
    (tmp_path / "errors/c.csv").write_text("abs_error\n1\n-2\n3\n")
    (tmp_path / "d.csv").write_text("y_true,pred\n1,2\n2,4\n3,3\n")
    models = [
        {"name": "a", "ewma_score": 1.5},
        {"name": "b", "group": "offline", "error_values": [1, -2, 3]},
        {"name": "c", "group": "online", "error_csv": "errors/c.csv"},
        {"name": "d", "group": "offline", "error_csv": "d.csv"},
    ]
    config = read_elpa_config(write(tmp_path, models))
    assert (config.beta, config.dirty_interval, config.amplitude_window) == (0.7, 3, 6)
    assert config.mutant_epsilon is None
    a, b, c, d = config.models
    assert (a.group, a.score, a.errors) == ("online", 1.5, None)
    assert b.errors.tolist() == [1, 2, 3]
    assert c.errors.tolist() == [1, 2, 3]
    assert d.errors.tolist() == [1, 2, 0]
    assert d.forecast.tolist() == [2, 4, 3]


@pytest.mark.parametrize("values", [[1, math.nan, math.nan], [1, None, math.inf]])
def test_a_model_with_a_non_finite_error_is_excluded_with_its_reason(tmp_path, values):
    models = [{"name": "good", "error_values": [1, 1, 1]}, {"name": "bad", "error_values": values}]
    config = read_elpa_config(write(tmp_path, models))
    assert [m.name for m in config.models] == ["good"]
    assert [(e.name, e.reason, e.rows) for e in config.excluded] == [("bad", "non-finite errors", 2)]


def test_a_nan_in_a_csv_file_or_a_score_excludes_too(tmp_path):
    (tmp_path / "x.csv").write_text("y_true,pred\n1,2\n2,\n")
    models = [{"name": "x", "error_csv": "x.csv"}, {"name": "s", "ewma_score": math.nan}]
    assert [e.name for e in read_elpa_config(write(tmp_path, models)).excluded] == ["x", "s"]


def test_errors_on_different_numbers_of_rows_are_a_fault(tmp_path):
    models = [{"name": "a", "error_values": [1, 2, 3]}, {"name": "b", "error_values": [1, 2]}]
    found = faults_of(tmp_path, models)
    assert found[0][0] == "models"
    assert "different numbers of rows" in found[0][1]


def test_errors_with_times_are_put_on_the_rows_they_share(tmp_path):
    (tmp_path / "a.csv").write_text("time,abs_error\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n")
    (tmp_path / "b.csv").write_text("time,abs_error\n2024-01-03,30\n2024-01-02,20\n")
    models = [{"name": n, "error_csv": f"{n}.csv"} for n in "ab"]
    config = read_elpa_config(write(tmp_path, models))
    assert [m.errors.tolist() for m in config.models] == [[2, 3], [20, 30]]


def test_a_time_that_repeats_is_a_fault(tmp_path):
    (tmp_path / "a.csv").write_text("time,abs_error\n1,1\n1,2\n")
    assert "two rows" in faults_of(tmp_path, [{"name": "a", "error_csv": "a.csv"}])[0][1]


def test_all_faults_come_at_once(tmp_path):
    (tmp_path / "bare.csv").write_text("x\n1\n")
    models = [
        {"name": "a", "error_values": [1]},
        {"name": "a", "group": "offline", "error_values": [1]},
        {"name": "b", "group": "sideways", "error_values": [1]},
        {"name": "c"},
        {"name": "d", "ewma_score": 1, "error_values": [1]},
        {"name": "e", "error_csv": "absent.csv"},
        {"name": "f", "error_csv": "bare.csv"},
        {"name": "g", "ewma_score": -1},
        {"name": "h", "error_values": [1, "x"]},
        {"name": "i", "error_values": [1], "enabled": "false"},
        {"name": "j", "eror_values": [1]},
    ]
    found = dict(
        faults_of(tmp_path, models, beta=1.5, dirty_interval=-1, amplitude_window=0, mutant_epsilon=0)
    )
    assert {key for key in found if not key.startswith("models")} == {
        "beta",
        "dirty_interval",
        "amplitude_window",
        "mutant_epsilon",
    }
    assert found["models[1].name"] == "is used by two models"
    assert found["models[2].group"] == "is not known"
    assert found["models[3]"] == "gives no errors"
    assert found["models[4]"] == "gives ewma_score and error_values"
    assert "cannot be read" in found["models[5].error_csv"]
    assert found["models[6].error_csv"] == "has no errors in its columns"
    assert found["models[7].ewma_score"] == "is not a score"
    assert found["models[8].error_values"] == "is not a number"
    assert found["models[9].enabled"] == "is not a boolean"
    assert found["models[10].eror_values"] == "is an unknown key"


def test_a_disabled_model_is_left_out(tmp_path):
    models = [{"name": "a", "error_values": [1]}, {"name": "b", "error_values": [1], "enabled": False}]
    assert [m.name for m in read_elpa_config(write(tmp_path, models)).models] == ["a"]


def test_a_file_that_is_not_json_is_a_fault(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(DocumentError, match="is not JSON"):
        read_elpa_config(path)
