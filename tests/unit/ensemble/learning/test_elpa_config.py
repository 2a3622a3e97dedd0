from __future__ import annotations

import json
import math

import pytest

from modelyard.core.errors import DocumentError
from modelyard.ensemble.learning.elpa_config import read_elpa_config


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


def timed(folder, name, times, *, errors=None):
    errors = errors or range(1, len(times) + 1)
    lines = [f"{time},{error}" for time, error in zip(times, errors, strict=True)]
    (folder / f"{name}.csv").write_text("\n".join(["time,abs_error", *lines]) + "\n")
    return {"name": name, "error_csv": f"{name}.csv"}


def test_numeric_times_are_sorted_as_numbers_also_for_a_lone_model(tmp_path):
    lone = timed(tmp_path, "a", [10, 9, 2, 100], errors=[3, 2, 1, 4])
    assert read_elpa_config(write(tmp_path, [lone])).models[0].errors.tolist() == [1, 2, 3, 4]


def test_equal_instants_written_differently_match(tmp_path):
    first = timed(tmp_path, "a", ["2024-01-01T00:00Z", "2024-01-01T01:00Z", "2024-01-01T02:00Z"])
    second = timed(tmp_path, "b", ["2024-01-01T04:00:00+02:00", "2024-01-01 01:00", "2024-01-01T00:00:00.0"])
    config = read_elpa_config(write(tmp_path, [first, second]))
    assert [m.errors.tolist() for m in config.models] == [[1, 2, 3], [3, 2, 1]]
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["1", "2", "x"], "data row 3: time is not a time"),
        (["2024-01-01", "", "2024-01-03"], "data row 2: time is empty"),
        (["1", "", "3"], "data row 2: time is empty"),
        (["2024-01-01", "2024-01-01T00:00Z"], "is the time of two rows"),
    ],
)
def test_times_that_cannot_be_read_are_faults(tmp_path, times, said):
    found = faults_of(tmp_path, [timed(tmp_path, "a", times)])
    assert [key for key, _ in found] == ["models[0].error_csv"]
    assert said in found[0][1]


def test_a_partial_overlap_is_warned_about_and_a_small_one_refused(tmp_path):
    first = timed(tmp_path, "a", range(40))
    config = read_elpa_config(write(tmp_path, [first, timed(tmp_path, "b", range(30, 70))]))
    assert config.warnings == ("10 rows, those that all models have, are used; given: a 40, b 40",)
    assert [len(m.errors) for m in config.models] == [10, 10]
    few = faults_of(tmp_path, [first, timed(tmp_path, "b", range(37, 77))])
    assert few == [("models", "have only 3 times in common, too few to compare them")]


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"ewma_score": 10**400}, "models[0].ewma_score"),
        ({"ewma_score": 1e308}, "models[0].ewma_score"),
        ({"error_values": [1, -(10**400)]}, "models[0].error_values"),
        ({"error_values": [1e308, 1e308]}, "models[0].error_values"),
        ({"error_csv": "large.csv"}, "models[0].error_csv"),
    ],
    ids=["score", "float-score", "value", "float-value", "csv"],
)
def test_numbers_that_cannot_be_squared_are_faults(tmp_path, model, key):
    (tmp_path / "large.csv").write_text("abs_error\n1\n1e308\n")
    assert faults_of(tmp_path, [{"name": "a"} | model]) == [(key, "is too large")]


@pytest.mark.parametrize("suffix", ["zip", "xz", "gz", "bz2", "zst"])
def test_a_file_named_like_an_archive_is_a_fault_not_a_crash(tmp_path, suffix):
    (tmp_path / f"e.csv.{suffix}").write_bytes(b"\x1f\x8b broken \xff")
    found = faults_of(tmp_path, [{"name": "a", "error_csv": f"e.csv.{suffix}"}])
    assert [key for key, _ in found] == ["models[0].error_csv"]


def test_windows_longer_than_memory_are_faults(tmp_path):
    found = faults_of(
        tmp_path, [{"name": "a", "ewma_score": 1}], amplitude_window=100_001, dirty_interval=10**9
    )
    assert {key for key, _ in found} == {"amplitude_window", "dirty_interval"}


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", "with space", "x" * 101])
def test_names_that_cannot_be_folders_are_faults(tmp_path, name):
    assert faults_of(tmp_path, [{"name": name, "ewma_score": 1}]) == [
        ("models[0].name", "cannot name a model")
    ]


def test_names_that_differ_by_case_alone_are_one_name(tmp_path):
    models = [{"name": "Tide", "ewma_score": 1}, {"name": "tide", "ewma_score": 1}]
    assert faults_of(tmp_path, models) == [("models[1].name", "is used by two models")]
