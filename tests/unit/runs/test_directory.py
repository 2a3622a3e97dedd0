"""A run's directory: of one plan for ever, driven by one process at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.core.clock import stamp
from modelyard.core.errors import RunBusy, RunMismatch, RunNotFound
from modelyard.core.files import write_json
from modelyard.core.processes import identity
from modelyard.runs.directory import Lease, create_run, drive, is_driven, open_run, read_lease
from modelyard.runs.yard import open_yard


def test_a_run_is_created_once_and_then_opened(make_run, make_step, yard):
    made = make_run(make_step("a"))
    assert make_run(make_step("a")) == made
    assert open_run(made.path) == made
    assert [s.name for s in made.plan().steps] == ["a"]
    created = [e for e in yard.journal.read() if e.kind == "run.created"]
    assert len(created) == 1
    assert (created[0].run, created[0].data["dir"]) == ("night", str(made.path))


def test_a_directory_of_another_plan_is_refused(make_run, make_step):
    make_run(make_step("a", "true"))
    with pytest.raises(RunMismatch, match="the plan has changed since"):
        make_run(make_step("a", "false"))


def test_a_directory_of_another_yard_is_refused(make_run, make_step, tmp_path):
    made = make_run(make_step("a"))
    other = open_yard(tmp_path / "other", create=True)
    with pytest.raises(RunMismatch, match="belongs to the yard"):
        create_run(other, made.path, run="night", kind="train", source="yard.yaml", plan=made.plan())


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"run": "x"}'])
def test_what_is_no_run_is_not_found(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunNotFound, match="is not a run's record" if text is not None else "there is no run"):
        open_run(tmp_path)


def test_one_process_drives_a_run(make_run, make_step):
    directory = make_run(make_step("a"))
    assert not is_driven(directory.path)
    with drive(directory):
        assert is_driven(directory.path)
        assert read_lease(directory.path)["holder"] == identity(os.getpid())
        with pytest.raises(RunBusy, match=f"process {os.getpid()} drives this run"), drive(directory):
            pass
        assert is_driven(directory.path)
    assert not is_driven(directory.path)
    with drive(directory):
        pass


def test_a_driver_that_failed_no_longer_drives(make_run, make_step):
    directory = make_run(make_step("a"))
    with pytest.raises(KeyError), drive(directory):
        raise KeyError
    assert not is_driven(directory.path)


def test_an_old_request_to_stop_is_forgotten(make_run, make_step):
    directory = make_run(make_step("a"))
    directory.cancel_path.touch()
    with drive(directory):
        assert not directory.cancel_path.exists()


def test_a_killed_driver_leaves_a_run_that_can_be_driven(make_run, make_step):
    directory = make_run(make_step("a"))
    code = (
        "import sys, time; from pathlib import Path\n"
        "from modelyard.runs.directory import drive, open_run\n"
        "with drive(open_run(Path(sys.argv[1]))):\n    print('driving', flush=True)\n    time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(directory.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout.readline() == "driving\n"
        assert is_driven(directory.path)
        with pytest.raises(RunBusy, match=f"process {driver.pid} "), drive(directory):
            pass
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not is_driven(directory.path)
    with drive(directory):
        assert is_driven(directory.path)


@pytest.mark.parametrize(
    ("host", "holder", "age_s", "driven"),
    [
        ("here", "me", 0, True),
        ("here", "me", 60, True),
        ("here", "", 0, False),
        ("here", "999999999:1:x", 0, False),
        ("elsewhere", "999999999:1:x", 0, True),
        ("elsewhere", "me", 60, False),
    ],
)
def test_who_drives_is_told_from_the_lease(tmp_path, host, holder, age_s, driven):
    record = {
        "holder": identity(os.getpid()) if holder == "me" else holder,
        "host": socket.gethostname() if host == "here" else host,
        "expires_at": stamp(datetime.now(UTC) + timedelta(seconds=30 - age_s)),
    }
    write_json(tmp_path / "lease.json", record)
    assert is_driven(tmp_path) is driven


@pytest.mark.parametrize("text", [None, "", "junk", "[]", "3"])
def test_a_lease_that_cannot_be_read_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / "lease.json").write_text(text)
    assert read_lease(tmp_path) == {}
    assert not is_driven(tmp_path)


def test_a_lease_is_written_seldom(tmp_path):
    lease = Lease(tmp_path / "lease.json")
    lease.renew()
    first = (tmp_path / "lease.json").read_text()
    lease.renew()
    assert (tmp_path / "lease.json").read_text() == first
    assert json.loads(first)["host"] == socket.gethostname()
