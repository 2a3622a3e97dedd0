"""Drivers: each has a name of its own for as long as it lives, and its end is seen by the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from modelyard.core.locks import held
from modelyard.tuning.drivers import Drivers

WAITS = """
import sys, time
from pathlib import Path
from modelyard.tuning.drivers import Drivers
with Drivers(folder=Path(sys.argv[1]), yard="y").join() as name:
    print(name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def drivers(tmp_path):
    return Drivers(folder=tmp_path / "drivers", yard="y")


def test_drivers_have_different_names_and_the_first_free_one_is_taken_again(drivers):
    with drivers.join() as first:
        with drivers.join() as second, drivers.join() as third:
            assert (first, second, third) == ("y:0", "y:1", "y:2")
        with drivers.join() as again:
            assert again == "y:1"


def test_a_driver_is_gone_once_it_has_left(drivers):
    with drivers.join() as one:
        assert not drivers.is_gone(one)
        with drivers.join() as other:
            assert not drivers.is_gone(other)
        assert drivers.is_gone(other) and not drivers.is_gone(one)
    assert drivers.is_gone(one)


def test_whether_any_is_at_work(drivers):
    assert not drivers.at_work()
    with drivers.join():
        with drivers.join():
            assert drivers.at_work()
        assert drivers.at_work()
    assert not drivers.at_work()


def test_asking_takes_nothing(drivers):
    with drivers.join():
        assert drivers.is_gone("y:5") and drivers.is_gone("y:5")
        with held(drivers.folder / "5.lock"):
            assert not drivers.is_gone("y:5")


def test_of_drivers_of_other_yards_nothing_is_known(drivers):
    with drivers.join():
        assert not drivers.is_gone("z:7") and not drivers.is_gone("")


def test_a_driver_that_is_killed_is_gone(drivers):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(drivers.folder)], stdout=subprocess.PIPE, text=True
    )
    with process:
        name = process.stdout.readline().strip()
        assert name == "y:0" and not drivers.is_gone(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert drivers.is_gone(name)
        with drivers.join() as mine:
            assert mine == name
