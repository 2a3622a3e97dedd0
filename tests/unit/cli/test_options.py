"""What several commands share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.cli.options import EXIT_STATUS, execution_options, print_json
from modelyard.runs.execution import Outcome


def test_every_outcome_has_its_exit_status() -> None:
    assert EXIT_STATUS == {
        Outcome.SUCCEEDED: 0,
        Outcome.FAILED: 1,
        Outcome.PARTIAL: 3,
        Outcome.CANCELLED: 130,
    }
    assert set(EXIT_STATUS) == set(Outcome)


def test_jobs_start_from_a_copy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_VARIABLE", "before")
    options = execution_options(3, continue_on_error=True)
    monkeypatch.setenv("A_VARIABLE", "after")
    assert (options.slots, options.continue_on_error) == (3, True)
    assert options.environment["A_VARIABLE"] == "before"


def test_json_is_one_value_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": Path("/x"), "text": "ü", "none": None})
    told = capsys.readouterr()
    assert json.loads(told.out) == {"path": "/x", "text": "ü", "none": None}
    assert "ü" in told.out and told.err == ""
