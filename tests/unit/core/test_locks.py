"""Locks: one holder at a time, in this process and in others, and free again however the holder ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modelyard.core.locks import held, is_held

TRY = """
import sys
from pathlib import Path
from modelyard.core.locks import held
with held(Path(sys.argv[1])):
    print("held")
"""


def other(path):
    return subprocess.run([sys.executable, "-c", TRY, str(path)], capture_output=True, text=True, check=False)


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with held(path):
        with pytest.raises(BlockingIOError), held(path):
            pass
        assert "BlockingIOError" in other(path).stderr
    assert other(path).stdout == "held\n"


def test_an_error_lets_go(tmp_path):
    with pytest.raises(ValueError, match="inside"), held(tmp_path / "lock"):
        raise ValueError("inside")
    with held(tmp_path / "lock"):
        pass


def test_whether_a_lock_is_held_can_be_asked_without_taking_it(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path) and not path.exists()
    with held(path):
        assert is_held(path)
        assert "BlockingIOError" in other(path).stderr
    assert not is_held(path)
