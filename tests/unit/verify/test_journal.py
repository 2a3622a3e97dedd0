"""The verifier: a sound journal has no faults, and no tampering with one goes unnoticed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
import rfc8785
from hypothesis import assume, example, given
from hypothesis import strategies as st

import modelyard.verify.journal as verifier
from modelyard.core.journal import Draft, Journal
from modelyard.verify.journal import verify_journal

COUNT = 6


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    Journal(folder).append(
        [Draft(kind="test", run="run", data={"number": n, "list": [1.5, None, "é"]}) for n in range(COUNT)]
    )
    return folder


@pytest.fixture(scope="module")
def tampered(tmp_path_factory, sound):
    """Verifies the sound journal with other lines."""
    lines = (sound / "journal.jsonl").read_bytes().splitlines(keepends=True)

    def verify(change):
        folder = tmp_path_factory.mktemp("tampered")
        changed = change(list(lines))
        (folder / "journal.jsonl").write_bytes(b"".join(changed))
        (folder / "head.json").write_bytes((sound / "head.json").read_bytes())
        return verify_journal(folder), changed != lines

    return verify


def test_a_sound_journal_has_no_faults_and_the_head_of_its_last_entry(sound):
    verdict = verify_journal(sound)
    last = json.loads((sound / "journal.jsonl").read_bytes().splitlines()[-1])
    assert (verdict.faults, verdict.entries, verdict.head) == ((), COUNT, last["digest"])


@given(st.data())
def test_any_changed_byte_is_noticed(tampered, data):
    def change(lines):
        index = data.draw(st.integers(0, COUNT - 1))
        position = data.draw(st.integers(0, len(lines[index]) - 1))
        byte = data.draw(st.integers(0, 255))
        assume(lines[index][position] != byte)
        lines[index] = lines[index][:position] + bytes([byte]) + lines[index][position + 1 :]
        return lines

    verdict, _ = tampered(change)
    assert verdict.faults


@pytest.mark.parametrize("index", range(COUNT))
def test_any_removed_line_is_noticed(tampered, index):
    assert tampered(lambda lines: lines[:index] + lines[index + 1 :])[0].faults


@pytest.mark.parametrize("kept", range(COUNT))
def test_a_truncated_log_is_noticed(tampered, kept):
    verdict, _ = tampered(lambda lines: lines[:kept])
    assert verdict.faults == (f"the log was cut short: {kept} entries where the head counts {COUNT}",)


@given(st.permutations(range(COUNT)))
def test_any_other_order_is_noticed(tampered, order):
    verdict, changed = tampered(lambda lines: [lines[i] for i in order])
    assert bool(verdict.faults) == changed


@pytest.mark.parametrize("index", range(COUNT + 1))
@pytest.mark.parametrize("copied", [0, COUNT - 1])
def test_any_inserted_line_is_noticed(tampered, index, copied):
    assert tampered(lambda lines: [*lines[:index], lines[copied], *lines[index:]])[0].faults


@pytest.mark.parametrize("index", range(COUNT))
def test_an_edit_with_its_digest_made_anew_breaks_the_chain(tampered, sound, index, tmp_path):
    """Who edits an entry and digests it correctly must rewrite all that follows, and the head."""
    forger = Journal(tmp_path / "forger")
    real = list(Journal(sound).read())
    forged = [
        Draft(kind=e.kind, run=e.run, data=dict(e.data) if i != index else {"forged": True})
        for i, e in enumerate(real)
    ]
    forger.append(forged)
    other = forger.log.read_bytes().splitlines(keepends=True)
    assert tampered(lambda lines: [*lines[:index], other[index], *lines[index + 1 :]])[0].faults
    assert tampered(lambda lines: [*lines[:index], *other[index:]])[0].faults


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b'{"seq": NaN}\n',
        b'{"data":NaN,"digest":"x","kind":"","prev":"","run":"","schema":"","seq":1,"time":""}\n',
        b'{"data":123456789012345678901,"digest":"x","kind":"","prev":"","run":"","schema":"","seq":1,"time":""}\n',
        b'{"data":"\\ud800","digest":"x","kind":"","prev":"","run":"","schema":"","seq":1,"time":""}\n',
    ],
)
def test_no_line_is_beyond_judging(tampered, line):
    verdict, _ = tampered(lambda lines: [line, *lines[1:]])
    assert verdict.faults[0].startswith("line 1: ")


def test_spaces_are_noticed_though_they_mean_nothing(tampered):
    verdict, _ = tampered(lambda lines: [lines[0].replace(b'":', b'": ', 1), *lines[1:]])
    assert verdict.faults == ("line 1: is not in canonical form",)


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (None, "head.json is missing: a truncated log could not be noticed"),
        (b"{}", "head.json is not a journal head"),
        (b'{"count": 2, "digest": "sha256:00"}',
         "entry 2 is not the one that the head names: the log was rewritten"),
        (b'{"count": 0, "digest": ""}', "entry 0 is not the one that the head names: the log was rewritten"),
    ],
)  # fmt: skip
def test_the_head_is_checked_too(tmp_path, sound, head, fault):
    (tmp_path / "journal.jsonl").write_bytes((sound / "journal.jsonl").read_bytes())
    if head is not None:
        (tmp_path / "head.json").write_bytes(head)
    assert verify_journal(tmp_path).faults == (fault,)


def test_a_head_that_lags_is_no_fault(tmp_path, sound):
    """A writer that dies between the log and the head leaves this."""
    lines = (sound / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    digest = json.loads(lines[2])["digest"]
    (tmp_path / "head.json").write_text(json.dumps({"count": 3, "digest": digest}))
    assert verify_journal(tmp_path).faults == ()


def run(folder):
    return subprocess.run(
        [sys.executable, "-m", "modelyard.verify.journal", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_verdict_and_its_status_tells_it(tmp_path, sound):
    good = run(sound)
    assert good.returncode == 0
    assert good.stdout == f"{COUNT} entries, head {verify_journal(sound).head}\n"
    (tmp_path / "journal.jsonl").write_bytes(b"junk\n")
    bad = run(tmp_path)
    assert bad.returncode == 1
    assert "line 1: is not JSON" in bad.stderr


def test_it_needs_nothing_of_ours():
    code = (
        "import sys, modelyard.verify.journal; print([m for m in sys.modules if m.startswith('modelyard')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(json.loads(loaded.replace("'", '"'))) == {
        "modelyard",
        "modelyard.verify",
        "modelyard.verify.anchor",
        "modelyard.verify.journal",
    }


def chained(numbers, times=(), data=()):
    """Lines whose digests and links are right, whatever their numbers, times and data."""
    previous, lines = "sha256:" + "0" * 64, []
    for index, number in enumerate(numbers):
        body = {
            "data": data[index] if data else {},
            "kind": "test",
            "prev": previous,
            "run": "",
            "schema": "s",
            "seq": number,
            "time": times[index] if times else "2026-01-01T00:00:00.000000+00:00",
        }
        previous = "sha256:" + hashlib.sha256(rfc8785.dumps(body)).hexdigest()
        lines.append(rfc8785.dumps({**body, "digest": previous}) + b"\n")
    return lines, json.dumps({"count": len(lines), "digest": previous})


@pytest.mark.parametrize(
    ("numbers", "faults"),
    [
        ((1, 2, 3), ()),
        ((1, 3), ("line 2: has number 3: entries were removed, added or reordered",)),
        ((1, 1), ("line 2: has number 1: entries were removed, added or reordered",)),
    ],
)
def test_numbers_go_without_gaps_even_where_the_links_hold(tmp_path, numbers, faults):
    lines, head = chained(numbers)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "head.json").write_text(head)
    assert verify_journal(tmp_path).faults == faults


def written(folder, *chain):
    lines, head = chained(*chain)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    (folder / "head.json").write_text(head)
    return folder


def moments(*seconds):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return [(start + timedelta(seconds=s)).isoformat(timespec="microseconds") for s in seconds]


@pytest.mark.parametrize(
    ("seconds", "faulty"),
    [
        ((0, 100, 41), []),  # within a minute: two machines whose clocks differ
        ((0, 100, 39), [3]),
        ((0, 100, 80, 60, 39), [5]),  # creeping back counts from the latest
        ((0, 9999, 1, 2, 3), [3]),  # a clock that was wrong and was mended is one fault, not three
        ((0, 9999, 500, 9999, 400), [3, 5]),
    ],
)
def test_time_does_not_go_back(tmp_path, seconds, faulty):
    numbers = range(1, len(seconds) + 1)
    verdict = verify_journal(written(tmp_path, numbers, moments(*seconds)))
    faults = verdict.faults
    assert verdict.clock == faults
    assert [int(fault.split()[1].rstrip(":")) for fault in faults] == faulty
    assert all("the clock was set back" in fault for fault in faults)


@pytest.mark.parametrize(
    "time", ["", "yesterday", "2026-01-01T00:00:00", "2026-01-01T00:00:00+01:00", 5, None, ["x"]]
)
def test_a_time_is_one_of_utc(tmp_path, time):
    faults = verify_journal(written(tmp_path, [1], [time])).faults
    assert faults == (f"line 1: has the time {time!r}, which is none in UTC",)


def test_what_is_still_to_come_has_not_happened(tmp_path):
    folder = written(tmp_path, [1, 2], moments(0, 100))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert verify_journal(folder).faults == ()
    assert verify_journal(folder, now=now + timedelta(seconds=41)).faults == ()
    (fault,) = verify_journal(folder, now=now + timedelta(seconds=39)).faults
    assert fault == "an entry says that it is of 2026-01-01 00:01:40+00:00, which is still to come"


@pytest.fixture
def used_yard(tmp_path):
    """A yard with two runs, whose journal announced their jobs."""
    for run, key in (("one", "k1"), ("two", "k2")):
        (tmp_path / "runs" / run / "jobs" / key).mkdir(parents=True)
    journal = Journal(tmp_path / "journal")
    journal.append([Draft(kind="job.intent", run="", data={"key": key}) for key in ("k1", "k2", "k3")])
    return tmp_path


def test_what_lies_in_the_yard_was_announced(used_yard):
    assert verify_journal(used_yard / "journal").faults == ()


def test_a_deleted_journal_is_noticed_by_the_jobs_that_it_announced(used_yard):
    for file in (used_yard / "journal").iterdir():
        file.unlink()
    (used_yard / "journal").rmdir()
    (fault,) = verify_journal(used_yard / "journal").faults
    assert fault.startswith("2 jobs lie in the yard that no entry announces, one is k1: ")


def test_a_journal_that_was_cut_with_its_head_is_noticed_by_a_job_of_the_part_that_is_gone(used_yard):
    log, head = used_yard / "journal" / "journal.jsonl", used_yard / "journal" / "head.json"
    first = log.read_bytes().splitlines(keepends=True)[0]
    log.write_bytes(first)
    head.write_text(json.dumps({"count": 1, "digest": json.loads(first)["digest"]}))
    (fault,) = verify_journal(used_yard / "journal").faults
    assert fault.startswith("1 jobs lie in the yard that no entry announces, one is k2: ")


@pytest.mark.parametrize("name", ["evaluations/e/evaluation.json", "certificates/c/paired_eval_report.json"])
def test_a_deleted_journal_is_noticed_by_a_result_that_came_after_its_first_entry(tmp_path, name):
    assert verify_journal(tmp_path / "journal").faults == ()
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("{}")
    (fault,) = verify_journal(tmp_path / "journal").faults
    assert fault.endswith("is there, but no entry at all: the log was deleted")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
whole_numbers = st.integers(-(2**53), 2**53)
numbers = whole_numbers | st.floats(allow_nan=False, allow_infinity=False)


def test_a_writer_at_work_is_no_fault(tmp_path):
    """Head and jobs may be newer than the log that was read, unless they are read first."""
    journal, done = Journal(tmp_path / "journal"), threading.Event()

    def work():
        number = 0
        while not done.is_set():
            number += 1
            journal.append([Draft(kind="job.intent", run="", data={"key": f"k{number}"})], durable=False)
            (tmp_path / "runs" / "one" / "jobs" / f"k{number}").mkdir(parents=True)

    journal.append([Draft(kind="test", run="", data={})])
    writer = threading.Thread(target=work)
    writer.start()
    try:
        found = [fault for _ in range(20) for fault in verify_journal(tmp_path / "journal").faults]
    finally:
        done.set()
        writer.join()
    assert [fault for fault in found if "has no end" not in fault] == []


values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(values)
@example({"\U0001f600": 1, "\ufb33": 2})  # sorted otherwise by code point than by UTF-16 unit
def test_the_quick_way_accepts_exactly_what_is_canonical(value):
    exact = "9007199254740992" not in json.dumps(value)
    spellings = [json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))]
    spellings += [json.dumps(value, sort_keys=True, separators=(",", ":"))]
    for text in [each.encode() for each in spellings] + ([rfc8785.dumps(value)] if exact else []):
        reader = verifier._Reader()
        again = reader.read(text)
        if reader.plain:
            quick, canonical = verifier._canonical(again, plain=True), rfc8785.dumps(again)
            assert (quick == text) == (canonical == text)


@pytest.mark.parametrize(
    ("texts", "plain"),
    [
        (["1", "-0", "9007199254740991", "1.5", "-0.0001", "{}", '"a"', '"\\u00e9"', '"\\ud83d"'], True),
        (["1.0", "-0.0", "1e5", "1E5", "1e-5", "0.00001", "1.50", "1e400", "123456789.123456789"], False),
        (["9007199254740992", "-9007199254740992", '"é"', '{"é": 1}', "[1, [2, 1.0]]"], False),
    ],
)
def test_which_spellings_are_judged_quickly(texts, plain):
    reader = verifier._Reader()
    for text in texts:
        reader.read(text.encode())
        assert (text, reader.plain) == (text, plain)


OTHER_SPELLINGS = (
    "1.0", "1e0", "-0", "0.10", "1E1", "10000000000000000000000", r'"\u0041"', r'"\/"', '{"b":1,"a":2}',
    '{"a":1,"a":1}', "[1, 2]", "NaN", "-Infinity", r'"\ud800"', r'"\u00e9"', '{"\ufb33":1,"\U0001f600":2}',
)  # fmt: skip


@pytest.mark.parametrize("spelled", [each.encode() for each in OTHER_SPELLINGS], ids=repr)
def test_no_other_spelling_passes_though_its_digest_is_right(tmp_path, spelled):
    """An entry whose digest was made over the very bytes of a spelling that is not the canonical one."""
    rest = (
        b'"kind":"t","prev":"sha256:%b","run":"","schema":"s","seq":1,"time":"2026-01-01T00:00:00+00:00"}'
        % (b"0" * 64)
    )
    digest = "sha256:" + hashlib.sha256(b'{"data":%b,%b' % (spelled, rest)).hexdigest()
    line = b'{"data":%b,"digest":"%b",%b\n' % (spelled, digest.encode(), rest)
    (tmp_path / "journal.jsonl").write_bytes(line)
    (tmp_path / "head.json").write_text(json.dumps({"count": 1, "digest": digest}))
    (fault,) = verify_journal(tmp_path).faults[:1]
    assert fault in ("line 1: is not in canonical form", "line 1: is not JSON")
