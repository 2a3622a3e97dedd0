"""A worker's journal: lines, files, locks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.journal import RequestJournal, is_written, journal_files, remove_unnamed
from modelyard.gateway.accounts.records import FIELDS, RequestRecord, line_of, read_line

Make = Callable[..., RequestRecord]


def test_a_line_has_every_field_and_comes_back(make_record: Make) -> None:
    record = make_record(prompt="two\nlines\r and \x85 \u2028 more", answer="é")
    line = line_of(record)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert read_line(line) == dict(zip(FIELDS, record, strict=True))


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b'{"worker": "w"}', b"\xff\n", b"null"])
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert read_line(line) is None


def test_half_a_record_is_none(make_record: Make) -> None:
    line = line_of(make_record())
    assert all(read_line(line[:n]) is None for n in range(len(line) - 1))


def test_a_journal_rolls_over_and_holds_one_file_at_a_time(folder: Path, make_record: Make) -> None:
    journal = RequestJournal(folder, "w1", roll_bytes=2 * len(line_of(make_record("r0"))) - 9)
    for number in range(5):
        journal.append(make_record(f"r{number}"))
    files = list(journal_files(folder))
    assert [(file.worker, file.number) for file in files] == [("w1", n) for n in range(1, len(files) + 1)]
    assert [is_written(file) for file in files] == [False] * (len(files) - 1) + [True]
    lines = [line for file in files for line in file.path.read_bytes().splitlines()]
    assert [orjson.loads(line)["request_id"] for line in lines] == [f"r{number}" for number in range(5)]
    assert len(files) == 3
    journal.sync()
    journal.close()
    assert not any(is_written(file) for file in files)


def test_a_name_is_used_once(folder: Path) -> None:
    RequestJournal(folder, "w1").close()
    with pytest.raises(GatewayError, match="worker = w1 has a journal already; give a new name"):
        RequestJournal(folder, "w1")


def test_forcing_to_the_disk_may_meet_a_file_that_was_just_let_go(folder: Path, make_record: Make) -> None:
    journal = RequestJournal(folder, "w1")
    journal.append(make_record())
    journal.sync()
    journal.close()
    journal.sync()


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "..", "a b", "x" * 65])
def test_what_is_no_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(GatewayError, match="is not a name"):
        RequestJournal(folder, name)


def test_a_file_that_is_gone_is_not_written(folder: Path) -> None:
    RequestJournal(folder, "w1").close()
    [file] = journal_files(folder)
    file.path.unlink()
    assert not is_written(file)


def test_what_never_got_its_name_is_removed_in_time(folder: Path) -> None:
    RequestJournal(folder, "w1").close()
    unnamed = folder / "requests" / "w2.000001.jsonl.new"
    unnamed.touch()
    made_s = unnamed.stat().st_mtime
    remove_unnamed(folder, made_s + 1)
    assert unnamed.exists()
    remove_unnamed(folder, made_s + 61)
    assert not unnamed.exists()
    assert len(list(journal_files(folder))) == 1


def test_a_full_disk_loses_the_line_with_a_word_and_not_the_next(folder: Path, make_record: Make) -> None:
    """The limit on the size of files stands for a full disk; the signal that comes with it is ignored."""
    line = len(line_of(make_record("r0")))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = RequestJournal(folder, "w1")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (line + line // 2, before[1]))
        journal.append(make_record("r0"))
        with pytest.raises(
            GatewayError, match=r"request r1 of key k could not be recorded .* bytes were taken"
        ):
            journal.append(make_record("r1"))
        with pytest.raises(GatewayError, match="request r2 of key k could not be recorded"):
            journal.append(make_record("r2"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    journal.append(make_record("r3"))
    journal.close()
    [file] = journal_files(folder)
    lines = [read_line(line) for line in file.path.read_bytes().splitlines()]
    assert [line and line["request_id"] for line in lines] == ["r0", None, "r3"]


WORKER = """
import os, sys, signal
from pathlib import Path
from modelyard.gateway.accounts.journal import RequestJournal
from modelyard.gateway.accounts.records import Outcome, RequestRecord
journal = RequestJournal(Path(sys.argv[1]), "w1")
journal.append(
    RequestRecord(
        request_id="r0", worker="w1", started_at=0.0, endpoint="/", asked_model="m", status=200,
        outcome=Outcome.OK, stream=False, latency_s=0.0, attempts=1,
    )
)
os.write(1, b"ready")
signal.pause()
"""


def test_a_killed_worker_leaves_its_lines_and_lets_go(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.read(5) == b"ready"
        [file] = journal_files(folder)
        assert is_written(file)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert not is_written(file)
    [line] = file.path.read_bytes().splitlines()
    assert read_line(line)
