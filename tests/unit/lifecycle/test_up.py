"""`up` before and after its steps: run names, what this machine lacks, checks, the table, the starter."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.core.errors import DocumentError
from modelyard.lifecycle.planning import Places
from modelyard.lifecycle.up import Prepared, copy_starter, headline, prediction_checks, prepare_up, up
from modelyard.runs.execution import ExecutionOptions
from modelyard.runs.yard import Yard

OPTIONS = ExecutionOptions(slots=1, environment={"PATH": os.environ["PATH"]})
Write = Callable[..., Path]


def prepared(path: Path, *, fresh: bool = False) -> Prepared:
    return prepare_up(path, path.parent / "runs", OPTIONS, fresh=fresh)


def test_preparing_writes_nothing(write: Write, tmp_path: Path) -> None:
    prepared(write())
    assert [path.name for path in tmp_path.iterdir()] == ["yard.yaml"]


def test_a_run_is_named_by_what_the_file_says(write: Write) -> None:
    path = write()
    first = prepared(path)
    assert first.run == f"small-{first.declaration.digest.removeprefix('sha256:')[:8]}"
    assert first.plan.run_dir == str(path.parent / "runs" / first.run)
    path.write_text("# a comment\n" + path.read_text())
    assert prepared(path).run == first.run
    assert prepared(write(horizon=4)).run != first.run


def test_a_fresh_run_has_the_next_number_and_the_newest_is_taken_up(write: Write) -> None:
    path = write()
    first = prepared(path, fresh=True).run
    assert first == prepared(path).run
    runs = path.parent / "runs"
    (runs / first).mkdir(parents=True)
    for number in (2, 3):
        fresh = prepared(path, fresh=True).run
        assert fresh == f"{first}-{number}"
        (runs / fresh).mkdir()
        assert prepared(path).run == fresh


def test_what_this_machine_lacks_is_told_and_nothing_is_begun(
    write: Write, yard: Yard, tmp_path: Path
) -> None:
    ready = prepared(write())
    lacking = {fault.key: fault for fault in ready.lacking}
    assert {"train/near.argv", "train/near.inputs", "predict/far.inputs"} <= set(lacking)
    assert all(fault.here for fault in ready.lacking)
    with pytest.raises(DocumentError, match=r"d\.csv"):
        up(yard, ready, OPTIONS)
    assert not (tmp_path / "runs").exists()


def test_a_missing_truth_is_found_before_anything_runs(write: Write, tmp_path: Path) -> None:
    ready = prepared(
        write(data={"dataset": "d.csv", "test_dataset": "t.csv", "truth": "no.csv"}, prepare=None)
    )
    found = [fault for fault in ready.lacking if fault.key == "collect.inputs"]
    assert [fault.value for fault in found] == [json.dumps(str(tmp_path / "no.csv"))]


def test_forecasts_are_held_against_their_groups_contract(write: Write, tmp_path: Path) -> None:
    checks = prediction_checks(prepared(write()).declaration)
    assert set(checks) == {"predictions.online", "predictions.offline"}
    path = tmp_path / "forecasts.csv"
    rows = [f"2024-01-01T00:00,{lead},2024-01-01T{lead:02d}:00,1.5" for lead in (1, 2, 3)]
    path.write_text("\n".join(["origin,lead,target_time,y_pred", *rows]) + "\n")
    assert checks["predictions.online"](path) is None
    path.write_text(path.read_text().replace("1.5", "nan"))
    assert "finite" in (checks["predictions.online"](path) or "")


def test_the_table_is_that_of_the_backtest(tmp_path: Path) -> None:
    places = Places(run_dir=tmp_path)
    assert headline(places) == []
    places.backtest.mkdir()
    entry = {"name": "a", "kind": "expert", "group": "online", "rows": "all", "lead": None, "mae": 2.0}
    (places.backtest / "backtest.json").write_text(
        json.dumps({"table": [entry, {**entry, "lead": 1, "mae": 1.0}]})
    )
    (row,) = headline(places)
    assert (row["name"], row["mae"], row["lead_1"]) == ("a", 2.0, 1.0)


def test_the_starter_is_copied_once_and_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "yard"
    written = copy_starter(folder)
    assert folder / "yard.yaml" in written and all(path.is_file() for path in written)
    (folder / "yard.yaml").write_text("mine")
    (folder / "mstl.py").unlink()
    assert copy_starter(folder) == [folder / "mstl.py"]
    assert (folder / "yard.yaml").read_text() == "mine"
    assert not [path for path in folder.iterdir() if path.name.startswith("__")]


def test_a_secret_of_the_notices_that_is_not_set_is_lacking(write: Write) -> None:
    ready = prepared(write(notify={"run": "tell", "secrets": ["NO_SUCH_HOOK_TOKEN"]}))
    (fault,) = [fault for fault in ready.lacking if fault.key == "notify.secrets"]
    assert (fault.value, fault.problem) == ('"NO_SUCH_HOOK_TOKEN"', "is not set")
