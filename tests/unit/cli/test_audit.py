"""`modelyard audit`: the anchor that is kept outside, and the journal against it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.core.errors import JournalError
from modelyard.core.journal import Draft, Journal
from modelyard.runs.yard import open_yard


@pytest.fixture
def yard(tmp_path):
    """A yard of two entries where the commands look for one."""
    opened = open_yard(tmp_path / ".modelyard", create=True)
    opened.journal.append([Draft(kind="test", run="", data={"n": n}) for n in range(2)])
    return opened


def replace(yard, *names):
    for file in yard.journal.folder.iterdir():
        file.unlink()
    Journal(yard.journal.folder).append([Draft(kind="test", run="", data={"n": name}) for name in names])


def test_a_journal_is_anchored_and_agrees(call, yard):
    made = call("audit", "anchor", "--out", "anchor.json")
    assert made.exit_code == 0
    assert (
        made.stdout.startswith("anchor.json: 2 entries, head sha256:") and "signed by sha256:" in made.stdout
    )
    sound = call("audit", "verify", "--anchor", "anchor.json")
    assert sound.exit_code == 0 and sound.stdout.rstrip().endswith(": SOUND")
    told = json.loads(call("audit", "verify", "--anchor", "anchor.json", "--json").stdout)
    assert (told["entries"], told["faults"], told["anchors"]) == (2, [], 1)


def test_a_journal_that_was_replaced_is_found_only_with_the_anchor(call, yard):
    call("audit", "anchor", "--out", "anchor.json")
    replace(yard, "x", "y", "z")
    assert call("audit", "verify").exit_code == 0
    bad = call("audit", "verify", "--anchor", "anchor.json")
    assert bad.exit_code == 1 and bad.stdout.rstrip().endswith("NOT SOUND")
    assert "entry 2 is another one: the log was rewritten, or forked before it" in bad.stderr


def test_a_newer_anchor_replaces_an_older_one_that_agrees(call, yard):
    call("audit", "anchor", "--out", "anchor.json")
    yard.journal.append([Draft(kind="test", run="", data={})])
    assert json.loads(call("audit", "anchor", "--out", "anchor.json", "--json").stdout)["count"] == 3


def test_an_anchor_that_shows_a_fraud_is_not_replaced(call, yard, tmp_path):
    call("audit", "anchor", "--out", "anchor.json")
    kept = (tmp_path / "anchor.json").read_bytes()
    replace(yard, "x", "y", "z")
    refused = call("audit", "anchor", "--out", "anchor.json")
    assert isinstance(refused.exception, JournalError) and "entry 2 is another one" in str(refused.exception)
    assert (tmp_path / "anchor.json").read_bytes() == kept
    (tmp_path / "notes.json").write_text("{}")
    refused = call("audit", "anchor", "--out", "notes.json")
    assert isinstance(refused.exception, JournalError) and (tmp_path / "notes.json").read_text() == "{}"


def test_what_is_not_sound_is_not_anchored(call, yard, tmp_path):
    yard.journal.log.write_bytes(yard.journal.log.read_bytes()[:-5])
    refused = call("audit", "anchor", "--out", "anchor.json")
    assert isinstance(refused.exception, JournalError) and "is not anchored" in str(refused.exception)
    assert not (tmp_path / "anchor.json").exists()


def test_a_clock_that_was_set_back_is_told_and_anchored(call, yard):
    """Else a clock that was mended once would keep the yard from being anchored for ever."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    Journal(yard.journal.folder, clock=lambda: yesterday).append([Draft(kind="test", run="", data={})])
    assert call("audit", "verify").exit_code == 1
    made = call("audit", "anchor", "--out", "anchor.json")
    assert made.exit_code == 0 and "line 3: " in made.stderr and "the clock was set back" in made.stderr


def test_who_is_trusted_can_be_kept_outside_too(call, yard, tmp_path):
    call("audit", "anchor", "--out", "anchor.json")
    (tmp_path / "mine").mkdir()
    arguments = ("audit", "verify", "--anchor", "anchor.json", "--trusted", "mine")
    refused = call(*arguments)
    assert refused.exit_code == 1 and "is none of the 0 trusted ones" in refused.stderr
    (public,) = (yard.keys_dir / "trusted").iterdir()
    (tmp_path / "mine" / "yard.pem").write_bytes(public.read_bytes())
    assert call(*arguments).exit_code == 0
