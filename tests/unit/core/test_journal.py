"""The journal: one chain whoever writes, whatever dies, and every tampering is noticed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import JournalError
from modelyard.core.failpoints import VARIABLE
from modelyard.core.journal import GENESIS, Draft, Journal
from modelyard.verify.journal import verify_journal

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
drafts = st.builds(
    Draft,
    kind=st.sampled_from(["job.intent", "job.finished", "run.ended"]),
    run=texts,
    data=st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts, max_size=3),
)


def draft(number: int, **data: object) -> Draft:
    return Draft(kind="test", run="run", data={"number": number, **data})


def numbers(journal: Journal) -> list[int]:
    return [entry.data["number"] for entry in journal.read() if entry.kind == "test"]


def test_entries_come_back_in_order_with_number_and_time(tmp_path):
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    journal = Journal(tmp_path, clock=lambda: moment)
    journal.append([draft(1, note="é"), draft(2)])
    journal.append([draft(3)], durable=False)
    entries = list(journal.read())
    assert [(e.seq, e.kind, e.run, e.data["number"]) for e in entries] == [
        (n, "test", "run", n) for n in (1, 2, 3)
    ]
    assert {e.time for e in entries} == {"2024-01-02T03:04:05.000000+00:00"}
    assert entries[-1].end == journal.log.stat().st_size
    assert json.loads(journal.head.read_text()) == {"count": 3, "digest": entries[-1].digest}
    assert json.loads(journal.log.read_bytes().splitlines()[0])["prev"] == GENESIS


@given(st.lists(st.lists(drafts, max_size=4), max_size=6))
def test_whatever_is_appended_is_read_and_is_sound(tmp_path_factory, batches):
    folder = tmp_path_factory.mktemp("journal")
    # Two instances that take turns: each must notice what the other wrote.
    writers = [Journal(folder), Journal(folder)]
    for turn, batch in enumerate(batches):
        writers[turn % 2].append(batch, durable=False)
    given = [(d.kind, d.run, d.data) for batch in batches for d in batch]
    assert [(e.kind, e.run, e.data) for e in Journal(folder).read()] == given
    verdict = verify_journal(folder)
    assert (verdict.faults, verdict.entries) == ((), len(given))


@given(st.lists(drafts, min_size=1, max_size=8), st.data())
def test_reading_may_start_after_any_entry(tmp_path_factory, batch, data):
    journal = Journal(tmp_path_factory.mktemp("journal"))
    journal.append(batch, durable=False)
    entries = list(journal.read())
    start = data.draw(st.integers(0, len(entries)))
    offset = entries[start - 1].end if start else 0
    assert list(journal.read(start=offset)) == entries[start:]


def test_an_empty_batch_writes_nothing(tmp_path):
    Journal(tmp_path / "none").append([])
    assert not (tmp_path / "none").exists()
    assert list(Journal(tmp_path / "none").read()) == []


WRITE_BATCHES = """
import sys
from pathlib import Path
from modelyard.core.journal import Draft, Journal
writer, *sizes = map(int, sys.argv[2:])
journal = Journal(Path(sys.argv[1]))
sys.stdin.read()
for size in sizes:
    batch = [Draft(kind="test", run="run", data={"number": i, "writer": writer}) for i in range(size)]
    journal.append(batch, durable=False)
"""


def test_several_processes_write_one_chain_and_their_batches_stay_together(tmp_path):
    sizes = [1, 5, 2, 9, 1, 1, 3] * 10
    commands = [
        [sys.executable, "-c", WRITE_BATCHES, str(tmp_path), str(writer), *map(str, sizes)]
        for writer in range(3)
    ]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for command in commands]
    for process in processes:
        process.stdin.close()  # all begin together
    assert [process.wait() for process in processes] == [0, 0, 0]
    entries = list(Journal(tmp_path).read())
    assert verify_journal(tmp_path).faults == ()
    assert len(entries) == 3 * sum(sizes)
    for writer in range(3):
        assert [e.data["number"] for e in entries if e.data["writer"] == writer] == [
            i for size in sizes for i in range(size)
        ]
    for one, following in pairwise(entries):
        if following.data["number"] > 0:  # within a batch nobody else comes between
            assert following.data["writer"] == one.data["writer"]


def test_a_torn_tail_is_dropped_and_recorded_wherever_it_was_torn(tmp_path):
    journal = Journal(tmp_path / "whole")
    journal.append([draft(1)], durable=False)
    kept = journal.log.read_bytes()
    head = journal.head.read_bytes()
    journal.append([draft(2, note="é" * 3)], durable=False)
    last = journal.log.read_bytes()[len(kept) :]
    for offset in range(1, len(last)):
        folder = tmp_path / str(offset)
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(kept + last[:offset])
        (folder / "head.json").write_bytes(head)
        torn = Journal(folder)
        assert numbers(torn) == [1]
        assert any("has no end" in fault for fault in verify_journal(folder).faults)
        torn.append([draft(3)], durable=False)
        assert [(e.kind, e.data) for e in torn.read()][1:] == [
            ("journal.torn_line", {"dropped_bytes": offset}),
            ("test", {"number": 3}),
        ]
        assert verify_journal(folder).faults == ()


def test_a_tail_torn_in_the_very_first_line_leaves_an_empty_log(tmp_path):
    (tmp_path / "journal.jsonl").write_bytes(b'{"data":')
    Journal(tmp_path).append([draft(1)])
    assert [e.kind for e in Journal(tmp_path).read()] == ["journal.torn_line", "test"]
    assert verify_journal(tmp_path).faults == ()


@pytest.mark.parametrize("size", [0, 40_000, 65_000, 70_000, 300_000])
def test_the_last_line_is_found_however_long_it_is(tmp_path, size):
    Journal(tmp_path).append([draft(1), draft(2, padding="x" * size)], durable=False)
    Journal(tmp_path).append([draft(3)], durable=False)
    assert numbers(Journal(tmp_path)) == [1, 2, 3]
    assert verify_journal(tmp_path).faults == ()


def limited(code: str, folder: Path, limit_bytes: int) -> str:
    """What a process prints in which no file may grow beyond a limit: the stand-in for a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


FILL = """
import sys
from pathlib import Path
from modelyard.core.errors import JournalError
from modelyard.core.journal import Draft, Journal
journal = Journal(Path(sys.argv[1]))
recorded = 0
for number in range(200):
    try:
        journal.append([Draft(kind="test", run="run", data={"number": number, "part": i}) for i in range(3)])
        recorded += 1
    except JournalError as error:
        if "nothing was recorded" not in str(error): raise
        break
print(recorded)
"""


def test_a_full_disk_records_all_of_a_batch_or_nothing(tmp_path):
    recorded = int(limited(FILL, tmp_path, 20_000))
    assert 0 < recorded < 200
    assert numbers(Journal(tmp_path)) == [n for n in range(recorded) for _ in range(3)]
    assert verify_journal(tmp_path).faults == ()
    Journal(tmp_path).append([draft(1000)])  # there is room again
    assert numbers(Journal(tmp_path))[-1] == 1000
    assert verify_journal(tmp_path).faults == ()


def test_an_instance_goes_on_after_the_disk_was_full(tmp_path):
    code = FILL + (
        "import resource\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "journal.append([Draft(kind='test', run='run', data={'number': -1})])\n"
    )
    first_limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (5000, 90_000))\njournal = J"
    code = code.replace("journal = J", first_limit, 1)
    recorded = int(limited(code, tmp_path, 90_000))
    assert numbers(Journal(tmp_path)) == [*(n for n in range(recorded) for _ in range(3)), -1]
    assert verify_journal(tmp_path).faults == ()


def test_a_head_that_cannot_be_written_takes_the_entries_back(tmp_path):
    """Else the caller, told that nothing was recorded, would record it twice."""
    journal = Journal(tmp_path)
    journal.append([draft(1)])
    journal.head.unlink()
    journal.head.mkdir()
    before = journal.log.read_bytes()
    with pytest.raises(JournalError, match="nothing was recorded"):
        journal.append([draft(2)])
    assert journal.log.read_bytes() == before
    journal.head.rmdir()
    journal.append([draft(2)])
    assert numbers(journal) == [1, 2]
    assert verify_journal(tmp_path).faults == ()


def test_what_is_no_json_leaves_no_trace(tmp_path):
    journal = Journal(tmp_path)
    journal.append([draft(1)])
    before = journal.log.read_bytes()
    with pytest.raises(ValueError):
        journal.append([draft(2), draft(3, value=float("nan"))])
    assert journal.log.read_bytes() == before
    journal.append([draft(4)])
    assert numbers(journal) == [1, 4]


@pytest.mark.parametrize("place", ["journal.before_write", "journal.before_sync", "journal.after_sync"])
def test_a_writer_killed_anywhere_leaves_a_journal_that_goes_on(tmp_path, place):
    code = (
        "import sys; from pathlib import Path; from modelyard.core.journal import Draft, Journal\n"
        "for n in range(3):\n"
        "    Journal(Path(sys.argv[1])).append([Draft(kind='test', run='', data={'number': n})])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, VARIABLE: f"{place}:2"}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    journal = Journal(tmp_path)
    assert numbers(journal) == ([0] if place == "journal.before_write" else [0, 1])
    journal.append([draft(9)])
    assert numbers(journal)[-1] == 9
    assert verify_journal(tmp_path).faults == ()


def test_a_log_that_was_cut_short_is_not_written_to(tmp_path):
    journal = Journal(tmp_path)
    journal.append([draft(1), draft(2)])
    lines = journal.log.read_bytes().splitlines(keepends=True)
    journal.log.write_bytes(lines[0])
    for writer in (journal, Journal(tmp_path)):
        with pytest.raises(JournalError, match="holds 1 entries where 2 were recorded"):
            writer.append([draft(3)])
    assert journal.log.read_bytes() == lines[0]


@pytest.mark.parametrize("head", [b"", b"[]", b'{"count": "many"}', b"\xff"])
def test_a_head_that_cannot_be_read_stops_the_writer(tmp_path, head):
    Journal(tmp_path).append([draft(1)])
    (tmp_path / "head.json").write_bytes(head)
    with pytest.raises(JournalError, match="is not a journal head"):
        Journal(tmp_path).append([draft(2)])


@pytest.mark.parametrize("line", [b"not json\n", b"[]\n", b'{"seq": 1}\n', b"\xff\xfe\n"])
def test_a_line_that_is_no_entry_is_an_error_that_names_its_place(tmp_path, line):
    journal = Journal(tmp_path)
    journal.append([draft(1)])
    size = journal.log.stat().st_size
    with journal.log.open("ab") as log:
        log.write(line)
    with pytest.raises(JournalError, match=f"ends at byte {size + len(line)} is not a journal entry"):
        list(journal.read())
    with pytest.raises(JournalError):
        Journal(tmp_path).append([draft(2)])


def test_a_folder_that_cannot_be_made_is_a_journal_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot append 1 entries"):
        Journal(tmp_path / "file" / "journal").append([draft(1)])
