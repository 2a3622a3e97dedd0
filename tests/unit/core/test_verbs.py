"""A room's verbs as a process: what is called, and the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.core.errors import RunError
from modelyard.core.verbs import carry_out, exit_status


def failing(path):
    raise RunError(f"{path}: cannot be done; do it otherwise")


def test_a_verb_is_given_its_file(capsys):
    seen = []
    verbs = {"one": seen.append, "other": failing}
    assert carry_out(["one", "a/spec.json"], verbs, room="rooms", about="What it does.") == 0
    assert seen == [Path("a/spec.json")] and capsys.readouterr() == ("", "")
    assert carry_out(["other", "b.json"], verbs, room="rooms", about="What it does.") == 1
    assert capsys.readouterr() == ("", "b.json: cannot be done; do it otherwise\n")


def test_called_wrongly_it_tells_its_verbs(capsys):
    for wrong in ([], ["third", "a.json"]):
        with pytest.raises(SystemExit) as ended:
            carry_out(wrong, {"one": failing}, room="rooms", about="What it does.")
        assert ended.value.code == 2
    assert "usage: python -m modelyard.rooms" in capsys.readouterr().err


def test_what_is_no_error_of_ours_is_not_hidden():
    assert exit_status(lambda: "anything") == 0
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 / 0)
