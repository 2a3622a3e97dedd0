"""The yard: made once, known by its id, and refused when it is of another kind."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import StateError
from modelyard.runs.yard import open_yard


def test_a_yard_keeps_its_identity(tmp_path):
    made = open_yard(tmp_path / "y", create=True)
    again = open_yard(tmp_path / "y", create=True)
    assert (again.id, again.root) == (made.id, made.root)
    assert open_yard(tmp_path / "y", create=False).id == made.id
    assert open_yard(tmp_path / "z", create=True).id != made.id


def test_everything_lies_within_it_whatever_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yard = open_yard(tmp_path.__class__("y"), create=True)
    for path in (yard.runs_dir, yard.artifacts_dir, yard.index_path, yard.journal.folder):
        assert path.is_relative_to(tmp_path / "y")


def test_none_is_made_unless_told(tmp_path):
    with pytest.raises(StateError, match="there is no yard here"):
        open_yard(tmp_path / "y", create=False)
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema": "modelyard.state/1"}', "junk"])
def test_a_damaged_record_is_an_error_that_says_so(tmp_path, text):
    (tmp_path / "yard.json").write_text(text)
    with pytest.raises(StateError, match="is not a yard's record"):
        open_yard(tmp_path, create=True)
    assert (tmp_path / "yard.json").read_text() == text


def test_another_version_is_refused(tmp_path):
    (tmp_path / "yard.json").write_text(json.dumps({"schema": "modelyard.state/9", "id": "x"}))
    with pytest.raises(StateError, match=r"has schema modelyard\.state/9"):
        open_yard(tmp_path, create=False)
