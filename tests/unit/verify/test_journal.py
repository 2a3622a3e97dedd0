"""The verifier: a sound journal has no faults, and no tampering with one goes unnoticed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
import rfc8785
from hypothesis import assume, given
from hypothesis import strategies as st

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
        "modelyard.verify.journal",
    }


def chained(numbers):
    """Lines whose digests and links are right, whatever their numbers."""
    previous, lines = "sha256:" + "0" * 64, []
    for number in numbers:
        body = {
            "data": {},
            "kind": "test",
            "prev": previous,
            "run": "",
            "schema": "s",
            "seq": number,
            "time": "",
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
