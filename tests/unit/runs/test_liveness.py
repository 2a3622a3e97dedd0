"""Running, stalled or lost: a reader tells without trusting the writer's clock alone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.clock import stamp
from modelyard.core.files import read_json, write_json
from modelyard.core.processes import identity
from modelyard.runs.directory import LEASE_S, Lease
from modelyard.runs.liveness import Life, Reader, liveness

WRITER = """
import sys, time
from pathlib import Path
from modelyard.runs.directory import Lease
lease = Lease(Path(sys.argv[1]))
lease.renew()
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder / "lease.json")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def changed(folder: Path, **fields: Any) -> None:
    write_json(folder / "lease.json", {**read_json(folder / "lease.json"), **fields})


def later(seconds: float) -> Reader:
    """A reader for whom so much time has gone by, on both of its clocks."""
    here = Reader.here()
    return replace(
        here,
        clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds),
        monotonic=lambda: time.monotonic() + seconds,
    )


def elsewhere(reader: Reader | None = None) -> Reader:
    return replace(reader or Reader.here(), host="another", boot="another")


def test_a_living_driver_runs(tmp_path: Path) -> None:
    Lease(tmp_path / "lease.json").renew()
    seen = liveness(tmp_path)
    assert (seen.life, seen.holder.partition(":")[0]) == (Life.RUNNING, str(os.getpid()))
    assert liveness(tmp_path, elsewhere()).life is Life.RUNNING


def test_a_lease_that_was_given_back_or_never_taken_is_idle(tmp_path: Path) -> None:
    assert liveness(tmp_path).life is Life.IDLE
    lease = Lease(tmp_path / "lease.json")
    lease.renew()
    lease.end()
    assert liveness(tmp_path).life is Life.IDLE
    assert liveness(tmp_path, elsewhere()).life is Life.IDLE


def test_sigstop_is_stalled_and_sigcont_runs_again(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        seen = liveness(tmp_path)
        assert (seen.life, seen.why) == (Life.STALLED, f"process {process.pid} is stopped")
        process.send_signal(signal.SIGCONT)
        os.waitpid(process.pid, os.WCONTINUED)
        assert liveness(tmp_path).life is Life.RUNNING


def test_sigkill_is_lost_at_once(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        process.kill()
        process.wait()
        assert liveness(tmp_path).life is Life.LOST


def test_a_driver_that_lives_and_does_not_renew_is_stalled(tmp_path: Path) -> None:
    with writer(tmp_path):
        assert liveness(tmp_path, later(LEASE_S - 5)).life is Life.RUNNING
        seen = liveness(tmp_path, later(LEASE_S + 5))
        assert seen.life is Life.STALLED
        assert seen.silent_s is not None
        assert seen.silent_s > LEASE_S


def test_another_boot_is_lost_whatever_process_has_the_number(tmp_path: Path) -> None:
    Lease(tmp_path / "lease.json").renew()
    changed(tmp_path, boot="an earlier one")
    assert liveness(tmp_path).life is Life.LOST


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_writer_whose_clock_is_wrong_is_judged_rightly_on_its_machine(tmp_path: Path, hours: int) -> None:
    with writer(tmp_path):
        changed(tmp_path, expires_at=stamp(datetime.now(UTC) + timedelta(hours=hours)))
        assert liveness(tmp_path).life is Life.RUNNING
        assert liveness(tmp_path, later(LEASE_S + 5)).life is Life.STALLED


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_reader_whose_clock_was_set_judges_rightly_on_the_same_machine(tmp_path: Path, hours: int) -> None:
    Lease(tmp_path / "lease.json").renew()
    reader = replace(Reader.here(), clock=lambda: datetime.now(UTC) + timedelta(hours=hours))
    assert liveness(tmp_path, reader).life is Life.RUNNING


def test_from_another_machine_an_ended_lease_is_lost(tmp_path: Path) -> None:
    Lease(tmp_path / "lease.json").renew()
    assert liveness(tmp_path, elsewhere(later(LEASE_S + 1))).life is Life.LOST


def test_from_another_machine_a_lease_without_end_is_not_believed(tmp_path: Path) -> None:
    Lease(tmp_path / "lease.json").renew()
    changed(tmp_path, expires_at=stamp(datetime.now(UTC) + timedelta(days=400)))
    assert liveness(tmp_path, elsewhere()).life is Life.STALLED


@pytest.mark.parametrize("days", [-400, 400])
def test_from_another_machine_two_readings_tell_without_the_writers_clock(tmp_path: Path, days: int) -> None:
    lease = Lease(tmp_path / "lease.json")
    lease.renew()
    earlier = read_json(tmp_path / "lease.json")
    wrong = stamp(datetime.now(UTC) + timedelta(days=days))
    changed(tmp_path, expires_at=wrong)
    assert liveness(tmp_path, elsewhere(), earlier=earlier).life is Life.LOST
    changed(tmp_path, expires_at=wrong, beat=earlier["beat"] + 1)
    assert liveness(tmp_path, elsewhere(), earlier=earlier).life is Life.RUNNING


@pytest.mark.parametrize(
    "lease",
    [
        {"host": "other"}, {"host": "other", "expires_at": "never"},
        {"host": "other", "expires_at": "2026-01-01T00:00:00"}, {"host": socket.gethostname(), "boot": "",
         "holder": identity(os.getpid()), "monotonic_s": "x"},
    ],
)  # fmt: skip
def test_a_lease_that_no_driver_wrote_is_lost(tmp_path: Path, lease: dict[str, str]) -> None:
    write_json(tmp_path / "lease.json", {"holder": "1:2", **lease})
    seen = liveness(tmp_path)
    assert (seen.life, seen.why) == (Life.LOST, "the lease is not as any driver writes it")
