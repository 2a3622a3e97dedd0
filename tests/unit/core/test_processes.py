"""A process keeps its name for ever, and those that carry a mark are found wherever they went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid

import pytest

from modelyard.core.processes import boot_id, identity, is_alive, kill_marked, marked, send, started_ticks

linux = pytest.mark.skipif(sys.platform != "linux", reason="the environment of processes is read in /proc")


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


def test_the_name_of_a_living_process_holds_its_number_start_and_boot(sleeper):
    name = identity(sleeper.pid)
    assert name == f"{sleeper.pid}:{started_ticks(sleeper.pid)}:{boot_id()}"
    assert is_alive(name)
    assert identity(sleeper.pid) == name


def test_an_ended_process_is_not_alive_even_before_it_is_waited_for(sleeper, wait_until):
    name = identity(sleeper.pid)
    sleeper.kill()
    wait_until(lambda: not is_alive(name))
    assert started_ticks(sleeper.pid) == ""  # a zombie now
    sleeper.wait()
    assert identity(sleeper.pid) == ""


def test_another_process_under_the_same_number_is_not_the_same(sleeper):
    pid, start, boot = identity(sleeper.pid).split(":")
    assert not is_alive(f"{pid}:{start}0:{boot}")
    assert not is_alive(f"{pid}:{start}:another-boot")
    assert not is_alive("")
    assert not is_alive("unknown:1:2")


@linux
def test_marked_processes_are_found_and_ended_though_they_left_their_session():
    mark = f"MODELYARD_JOB_KEY=test-{uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    environment = {**os.environ, name: value}
    with subprocess.Popen(["sleep", "300"], env=environment, start_new_session=True) as process:
        assert marked(mark) == [process.pid]
        assert marked(mark[:-1]) == []
        assert kill_marked(mark) == 1
        assert process.wait() == -signal.SIGKILL
    assert kill_marked(mark) == 0


def test_signals_to_ended_processes_are_no_error(sleeper):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    send([process.pid, sleeper.pid], signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM
