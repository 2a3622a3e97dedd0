"""Journal and database after a process that died between them, and a database that is not the one it was."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.core.errors import RegistryError
from modelyard.core.failpoints import REGISTRY_NAMES, VARIABLE
from modelyard.core.journal import Draft
from modelyard.core.locks import held
from modelyard.registry.audit import audit
from modelyard.registry.ledger import (
    ABANDONED,
    APPROVED,
    INTENT,
    MOVED,
    REGISTERED,
    alone,
    carry_out,
    note,
    place_in,
    read_ledger,
    reconcile,
    registry_url,
)
from modelyard.registry.promotion import Promotion, rehearse
from modelyard.registry.rollback import Rollback, rollback
from modelyard.registry.store import open_registry
from modelyard.registry.versions import Candidate, register
from modelyard.runs.yard import open_yard
from modelyard.testing.certificates import model_digest
from modelyard.testing.promotion_campaign import drive, fallen, kept, prepare

#: Processes that begin with everything imported.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["modelyard.testing.promotion_campaign"])


@pytest.fixture
def would(yard, registry, promoted, certificate):
    """A move of stage from a to b that is about to be made, its evidence in the yard."""
    promoted("a", over="x")
    report = certificate("b", "a")
    move = rehearse(yard, registry, Promotion(version="b", alias="stage", evidence=report, actor="ann")).move
    kept = yard.root / "evidence" / move.evidence_digest.removeprefix("sha256:")
    shutil.copytree(report.parent, kept)
    return replace(move, evidence=(kept / report.name).relative_to(yard.root).as_posix())


def test_an_intent_whose_transaction_was_kept_is_ended_as_moved(yard, registry, would, kinds):
    note(yard, registry, INTENT, {"move": would.record()})
    registry.apply(would)
    assert audit(yard, registry).open == ("stage to b@1 (generation 2)",)
    assert audit(yard, registry).faults == ()
    assert reconcile(yard, registry).moved == (would.id,)
    assert reconcile(yard, registry).nothing
    assert kinds() == [INTENT, MOVED] * 2
    assert audit(yard, registry).open == ()


def test_an_intent_whose_transaction_never_was_is_abandoned(
    yard, registry, would, kinds, promoted, certificate
):
    note(yard, registry, INTENT, {"move": would.record()})
    assert reconcile(yard, registry).abandoned == (would.id,)
    assert reconcile(yard, registry).nothing
    assert kinds() == [INTENT, MOVED, INTENT, ABANDONED]
    assert registry.aliases()["stage"].label == "a@1"
    assert promoted("b", over="a").move.generation == 2
    assert audit(yard, registry).faults == ()


def test_a_move_that_somebody_else_was_first_with_is_abandoned_at_once(
    yard, registry, would, promoted, kinds
):
    promoted("c", over="a")
    with pytest.raises(RegistryError, match="was moved meanwhile by ann to c@1"):
        carry_out(yard, registry, would)
    assert kinds() == [INTENT, MOVED, INTENT, MOVED, INTENT, ABANDONED]
    assert "was moved meanwhile" in list(yard.journal.read())[-1].data["reason"]
    assert reconcile(yard, registry).nothing


def test_a_transaction_that_was_kept_though_it_was_said_to_have_failed_is_ended(yard, registry, would, kinds):
    registry.apply(would)  # the answer to this one was lost
    carry_out(yard, registry, would)
    assert kinds() == [INTENT, MOVED] * 2
    assert audit(yard, registry).faults == ()


def test_who_comes_later_ends_what_was_left_open(yard, registry, would, promoted, kinds):
    note(yard, registry, INTENT, {"move": would.record()})
    registry.apply(would)
    assert promoted("c", over="b").move.generation == 3
    assert kinds() == [INTENT, MOVED] * 3


def test_a_rollback_that_was_made_before_a_crash_is_not_made_twice(yard, registry, promoted):
    for name, over in (("a", "x"), ("b", "a"), ("c", "b")):
        promoted(name, over=over)
    wanted = Rollback(alias="stage", actor="ann", reason="r")
    back = rollback(yard, registry, wanted)
    log = yard.root / "journal" / "journal.jsonl"
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))  # died before the journal's end of it
    (yard.root / "journal" / "head.json").unlink()
    assert rollback(yard, registry, wanted) == back
    assert registry.aliases()["stage"].label == "b@1"


def test_a_registration_and_an_approval_without_their_rows_are_entered(yard, registry, tmp_path):
    register(yard, registry, Candidate(name="d", digest=model_digest("d"), trained_by="k"))
    ledger = read_ledger(yard, registry)
    (known,) = [each for each in ledger.registered.values() if each.name == "d"]
    late = replace(known, id="late", digest=model_digest("d2"))
    note(yard, registry, REGISTERED, {"version": late.record()})
    approval = {
        "alias": "prod",
        "generation": 1,
        "evidence_digest": "e",
        "digest": "d",
        "signature": {"key_id": "k"},
    }
    note(yard, registry, APPROVED, {"approval": approval})
    done = reconcile(yard, registry)
    assert (done.registered, done.approvals) == (1, 1)
    assert registry.version("d").record() == {**late.record(), "version": 2}
    assert registry.approvals() == (approval,)
    assert reconcile(yard, registry).nothing


def test_a_registration_that_another_yard_was_first_with_is_let_be(yard, registry):
    ledger = read_ledger(yard, registry)
    known = next(iter(ledger.registered.values()))
    note(yard, registry, REGISTERED, {"version": replace(known, id="second").record()})
    assert reconcile(yard, registry).nothing


def test_one_process_at_a_time(yard):
    with (
        held(yard.root / "registry.lock"),
        pytest.raises(RegistryError, match=r"for 0\.05 s"),
        alone(yard, wait_s=0.05),
    ):
        pass
    with alone(yard, wait_s=0.05):
        pass


def test_a_database_in_the_place_of_another_is_refused(yard, registry, promoted, certificate):
    promoted("a", over="x")
    registry.close()
    Path(registry.place).unlink()
    with open_registry(registry_url(yard)) as fake:
        for act in (
            lambda: register(yard, fake, Candidate(name="z", digest=model_digest("z"))),
            lambda: rollback(yard, fake, Rollback(alias="stage", actor="a", reason="r")),
            lambda: reconcile(yard, fake),
        ):
            with pytest.raises(RegistryError, match="it was replaced; restore the database"):
                act()
        assert "it was replaced" in audit(yard, fake).faults[0]


def test_a_database_that_was_set_back_is_refused(yard, registry, promoted, tmp_path):
    promoted("a", over="x")
    shutil.copy(registry.place, tmp_path / "older.db")
    promoted("b", over="a")
    registry.close()
    shutil.copy(tmp_path / "older.db", registry.place)
    with pytest.raises(
        RegistryError, match="has generation 1 of stage, where the journal knows 2: it was set back"
    ):
        promoted("c", over="a")
    faults = audit(yard, registry).faults
    assert any("set back" in fault for fault in faults)
    assert "stage generation 2: is in the journal, and its row was removed from the history" in faults


def test_a_registry_lies_in_its_yard_whatever_signs_the_path_has(tmp_path):
    odd = open_yard(tmp_path / "a b?c%20d#e ä", create=True)
    with open_registry(registry_url(odd)) as made:
        assert made.place == str(odd.root / "registry.db")
        assert place_in(odd, made) == "registry.db"
    assert (odd.root / "registry.db").is_file()


def test_a_registry_at_a_relative_path_is_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_registry("sqlite:///here/registry.db") as made:
        assert made.place == str(tmp_path / "here" / "registry.db")


def test_a_yard_may_use_two_registries_and_be_moved(yard, registry, promoted, tmp_path):
    promoted("a", over="x")
    with open_registry(f"sqlite:///{tmp_path / 'other.db'}") as other:
        register(yard, other, Candidate(name="z", digest=model_digest("z")))
        assert audit(yard, other).faults == ()
    registry.close()
    moved = replace(yard, root=tmp_path / "moved")
    shutil.copytree(yard.root, moved.root)
    with open_registry(registry_url(moved)) as same:
        assert audit(moved, same).faults == ()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """What the kill campaign's scenario needs."""
    folder = tmp_path_factory.mktemp("promotions") / "template"
    prepare(folder)
    return folder


@pytest.mark.kill
@pytest.mark.parametrize("place", REGISTRY_NAMES)
def test_a_process_that_dies_anywhere_leaves_no_alias_without_evidence(tmp_path, template, place):
    folder = tmp_path / "trial"
    shutil.copytree(template, folder)
    process = PROCESSES.Process(target=_drive, args=(folder, place))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the failpoint was never passed"
    assert not any(fallen(folder, None).values())
    drive(folder, None)
    assert not any(kept(folder, None).values())


def _drive(folder: Path, failpoint: str) -> None:
    os.environ[VARIABLE] = failpoint
    drive(folder, None)


def test_an_entry_that_no_registry_wrote_is_told_by_its_number(yard, registry):
    yard.journal.append([Draft(kind="alias.moved", run="", data={"move": "m"})])
    with pytest.raises(RegistryError, match=r"entry \d+ \(alias.moved\) is not as modelyard writes it"):
        read_ledger(yard, registry)
