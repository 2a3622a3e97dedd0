"""Anchors: a signed head that was kept outside finds what the journal alone cannot show."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.core.errors import JournalError
from modelyard.core.journal import Draft, Journal
from modelyard.core.signing import open_signer
from modelyard.runs.anchoring import write_anchor
from modelyard.runs.yard import Yard, open_yard
from modelyard.verify.anchor import read_anchors
from modelyard.verify.journal import verify_journal

START = datetime(2026, 1, 1, tzinfo=UTC)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def yard(tmp_path, hand):
    opened = open_yard(tmp_path / "yard", create=True)
    return Yard(root=opened.root, id=opened.id, journal=Journal(opened.journal.folder, clock=hand))


def add(yard, *names):
    yard.journal.append([Draft(kind="test", run="", data={"name": name}) for name in names])


@pytest.fixture
def anchored(yard, hand, tmp_path):
    """The yard with three entries of 0:00, anchored at 0:10, and the file."""
    add(yard, "a", "b", "c")
    hand.now = START + timedelta(minutes=10)
    return yard, anchor(yard, tmp_path / "anchor.json", hand)


def anchor(yard, path, hand):
    signer = open_signer(yard.keys_dir / "yard.pem", create=True)
    verdict = verify_journal(yard.journal.folder)
    write_anchor(yard, (verdict.entries, verdict.head), path, signer=signer, clock=hand)
    return path


def faults(yard, *paths, trusted=None):
    believed, problems = read_anchors(paths, trusted or yard.keys_dir / "trusted")
    return [*problems, *verify_journal(yard.journal.folder, anchors=believed).faults]


def rewritten(yard, hand, *names):
    """The yard with another journal: log and head made anew, sound in themselves."""
    shutil.rmtree(yard.journal.folder)
    other = Yard(root=yard.root, id=yard.id, journal=Journal(yard.journal.folder, clock=hand))
    add(other, *names)
    return other


def test_a_journal_agrees_with_its_anchor_and_may_grow(anchored):
    yard, path = anchored
    assert faults(yard, path) == []
    add(yard, "d")
    assert faults(yard, path) == []
    record = json.loads(path.read_text())
    assert (record["schema"], record["yard"], record["count"]) == ("modelyard.anchor/1", yard.id, 3)
    assert record["time"] == "2026-01-01T00:10:00.000000+00:00"


def test_a_log_cut_short_together_with_its_head(anchored, hand):
    yard, path = anchored
    hand.now = START
    cut = rewritten(yard, hand, "a", "b")
    assert faults(cut) == []
    (fault,) = faults(cut, path)
    assert fault.endswith("counts 3 entries where there are 2: the log was cut short")


def test_a_log_deleted_together_with_its_head(anchored):
    yard, path = anchored
    shutil.rmtree(yard.journal.folder)
    assert faults(yard) == []
    (fault,) = faults(yard, path)
    assert fault.endswith("counts 3 entries where there is none: the log was deleted")


@pytest.mark.parametrize("names", ["abx", "xbc", "acb", "abxdefg"], ids=str)
def test_a_fork_however_long_it_grows(anchored, hand, names):
    """Edited, reordered, continued otherwise: sound in itself, another at the anchor."""
    yard, path = anchored
    hand.now = START
    fork = rewritten(yard, hand, *names)
    assert faults(fork) == []
    (fault,) = faults(fork, path)
    assert fault.endswith("entry 3 is another one: the log was rewritten, or forked before it")


def test_two_logs_that_share_a_beginning_cannot_both_have_their_anchors(anchored, hand, tmp_path):
    """Who shows one log to one reader and another to the next is found when the readers compare."""
    yard, common = anchored
    shutil.copytree(yard.root, tmp_path / "copy")
    copy = Yard(root=tmp_path / "copy", id=yard.id, journal=Journal(tmp_path / "copy/journal", clock=hand))
    add(yard, "d")
    add(copy, "e")
    one = anchor(yard, tmp_path / "one.json", hand)
    two = anchor(copy, tmp_path / "two.json", hand)
    assert faults(yard, common, one) == faults(copy, common, two) == []
    assert len(faults(yard, common, one, two)) == len(faults(copy, common, one, two)) == 1


def test_entries_of_before_the_anchor_are_not_later_than_it(yard, hand, tmp_path):
    hand.now = START + timedelta(hours=1)
    add(yard, "from the future")
    hand.now = START
    path = anchor(yard, tmp_path / "anchor.json", hand)
    assert faults(yard) == []
    (fault,) = faults(yard, path)
    assert fault.endswith(
        "entry 1 was there, but says that it is of 2026-01-01 01:00:00+00:00, which was the future"
    )


def test_entries_of_after_the_anchor_are_not_earlier_than_it(anchored, hand):
    yard, path = anchored
    hand.now = START + timedelta(minutes=9, seconds=30)  # within a minute of the anchor
    add(yard, "d")
    assert faults(yard, path) == []
    hand.now = START + timedelta(minutes=8, seconds=59)
    add(yard, "e")
    assert faults(yard) == []
    (fault,) = faults(yard, path)
    assert fault.endswith(
        "entry 5 was not there, but says that it is of 2026-01-01 00:08:59+00:00: it is backdated"
    )


def test_an_anchor_of_nothing_is_kept_too(yard, hand, tmp_path):
    path = anchor(yard, tmp_path / "anchor.json", hand)
    assert faults(yard, path) == []
    add(yard, "a")
    assert faults(yard, path) == []


def test_an_anchor_of_another_yard_says_nothing_of_this_one(anchored, hand, tmp_path):
    yard, _ = anchored
    other = open_yard(tmp_path / "other", create=True)
    path = anchor(other, tmp_path / "other.json", hand)
    (fault,) = faults(yard, path, trusted=other.keys_dir / "trusted")
    assert fault.endswith(f"is of the yard {other.id}, this is {yard.id}")


def test_an_anchor_is_believed_only_from_a_trusted_key(anchored, tmp_path):
    yard, path = anchored
    forger = open_signer(tmp_path / "forger" / "yard.pem", create=True)
    record = {k: v for k, v in json.loads(path.read_text()).items() if k != "signature"}
    path.write_text(json.dumps(forger.sign({**record, "count": 1})))
    (fault,) = faults(yard, path)
    assert fault.startswith(f"{path}: the signature cannot be believed: its key {forger.key_id} is none of")
    (fault,) = faults(yard, path, trusted=tmp_path / "forger" / "trusted")
    assert "entry 1 is another one" in fault


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: {**r, "count": 2}, "something was changed after signing"),
        (lambda r: {**r, "time": "2027-01-01T00:00:00+00:00"}, "something was changed after signing"),
        (lambda r: {k: v for k, v in r.items() if k != "signature"}, "there is none"),
        (lambda _: [], "is not a JSON object"),
    ],
)
def test_a_changed_anchor_is_not_believed(anchored, change, told):
    yard, path = anchored
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    (fault,) = faults(yard, path)
    assert fault.startswith(f"{path}: ") and told in fault


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"schema": "other/1"}, "has the schema 'other/1' where modelyard.anchor/1 is expected"),
        ({}, "has no 'schema'"),
        ({"schema": "modelyard.anchor/1", "time": "noon"}, "Invalid isoformat"),
        ({"schema": "modelyard.anchor/1", "time": "2026-01-01", "count": 1}, "has a time without zone"),
        ({"schema": "modelyard.anchor/1", "time": None}, "must be str"),
    ],
)
def test_a_signed_record_that_is_no_anchor_is_told(yard, tmp_path, body, told):
    signer = open_signer(yard.keys_dir / "yard.pem", create=True)
    path = tmp_path / "anchor.json"
    path.write_text(json.dumps(signer.sign(body)))
    (fault,) = faults(yard, path)
    assert fault.startswith(f"{path}: ") and told in fault


def test_a_missing_anchor_and_a_broken_trusted_key_are_told(yard, tmp_path):
    (fault,) = faults(yard, tmp_path / "none.json")
    assert fault == f"{tmp_path / 'none.json'}: cannot be read (No such file or directory)"
    (tmp_path / "k.pem").write_text("junk")
    (fault,) = faults(yard, tmp_path / "none.json", trusted=tmp_path)
    assert fault == f"{tmp_path / 'k.pem'}: is not a public key on the curve P-256"


def test_an_anchor_is_not_kept_in_the_yard(yard, hand):
    with pytest.raises(JournalError, match="lies in the yard"):
        anchor(yard, yard.root / "keys" / ".." / "anchor.json", hand)


def test_a_restart_refuses_a_shorter_log(anchored, hand):
    yard, _ = anchored
    log = yard.journal.log
    for kept in (2, 0):
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
        with pytest.raises(JournalError, match=f"holds {kept} entries where 3 were recorded"):
            add(Yard(root=yard.root, id=yard.id, journal=Journal(yard.journal.folder, clock=hand)), "d")


def test_the_command_takes_anchors(anchored, hand):
    yard, path = anchored

    def run():
        argv = [sys.executable, "-m", "modelyard.verify.journal", yard.journal.folder, "--anchor", path]
        trusted = ["--trusted", yard.keys_dir / "trusted"]
        return subprocess.run([*argv, *trusted], capture_output=True, text=True, check=False)

    assert (run().returncode, run().stderr) == (0, "")
    rewritten(yard, hand, "x", "y", "z")
    bad = run()
    assert bad.returncode == 1 and "entry 3 is another one" in bad.stderr
