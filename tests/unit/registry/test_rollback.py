"""Going back: to what stands beneath, on evidence that still holds, and a drill that moves nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.digests import digest_path
from modelyard.core.errors import EvidenceError, RegistryError
from modelyard.core.signing import TRUSTED
from modelyard.evaluation.pool import read_entry
from modelyard.registry.audit import audit
from modelyard.registry.rollback import Rollback, drill, rehearse, rollback
from modelyard.registry.versions import Candidate, register
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest


@pytest.fixture
def back(yard, registry):
    """Rolls an alias back, or does it in another way."""

    def do(how=rollback, alias="stage", **changes):
        told = {"alias": alias, "actor": "ann", "reason": "it loops", **changes}
        return how(yard, registry, Rollback(**told))

    return do


@pytest.fixture
def three(promoted):
    """Stage served a, then b, then c."""
    for name, over in (("a", "x"), ("b", "a"), ("c", "b")):
        promoted(name, over=over)


def test_back_to_the_version_before_and_the_one_before_that(yard, registry, three, back, kinds):
    first = back()
    assert (first.label, first.kind, first.generation, first.reason) == ("b@1", "rollback", 4, "it loops")
    assert first.from_digest == model_digest("c")
    assert first.evidence_digest == registry.history("stage")[1].evidence_digest
    assert back().label == "a@1"
    with pytest.raises(RegistryError, match="serves a@1, and nothing stands beneath it"):
        back()
    assert kinds() == ["alias.intent", "alias.moved"] * 5
    assert audit(yard, registry).faults == ()


@pytest.mark.parametrize("to", ["a@1", "b@1"])
def test_back_to_a_named_version(registry, three, back, to):
    assert back(to=to).label == to
    assert registry.aliases()["stage"].label == to


def test_back_to_a_number_where_one_name_was_served(yard, registry, promoted, certificate, back):
    for number in (1, 2, 3):
        digest = model_digest(f"m{number}")
        register(yard, registry, Candidate(name="m", digest=digest))
        promoted(f"m@{number}", over="x", evidence=certificate(f"m{number}", f"m{number - 1}"))
    assert back(to="1").label == "m@1"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("c@1", "serves c@1 now; go back to one of b@1, a@1"),
        ("d@1", "'d@1' does not stand beneath it; go back to one of b@1, a@1"),
        ("1", "go back to one of b@1, a@1"),
        ("b", "does not stand beneath it"),
    ],
)
def test_a_version_that_was_not_served_beneath_is_refused(three, back, to, said):
    with pytest.raises(RegistryError, match=said):
        back(to=to)


def test_a_version_that_was_rolled_back_from_needs_new_evidence(three, back, promoted, certificate):
    back(to="a@1")
    with pytest.raises(RegistryError, match="serves a@1, and nothing stands beneath"):
        back(to="b@1")
    promoted("c", over="a")
    with pytest.raises(RegistryError, match=r"b@1 was rolled back from; .* certify and promote b@1 anew"):
        back(to="b@1")
    assert promoted("b", over="c").result == "moved"


def test_prod_goes_back_whatever_stage_serves(registry, promoted, policy, back):
    policy(prod=0)
    for name, over in (("a", "x"), ("b", "a")):
        promoted(name, over=over)
        promoted(name, over=over, alias="prod")
    promoted("c", over="b")
    assert back(alias="prod").label == "a@1"
    assert {name: alias.label for name, alias in registry.aliases().items()} == {
        "prod": "a@1",
        "stage": "c@1",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "  "}, "needs a reason"),
        ({"actor": ""}, "name of who asks"),
        ({"alias": "live"}, "'live' is no alias"),
        ({"alias": "prod"}, "prod: serves nothing"),
    ],
)
def test_what_cannot_be_asked(three, back, changes, said):
    with pytest.raises(RegistryError, match=said):
        back(**changes)


def _spoil_answers(yard, folder):
    (folder / "answers.jsonl").write_text("")


def _remove(yard, folder):
    shutil.rmtree(folder)


def _distrust(yard, folder):
    for path in (yard.keys_dir / TRUSTED).glob("*.pem"):
        path.unlink()


SPOILERS = pytest.mark.parametrize("spoil", [_spoil_answers, _remove, _distrust])


@SPOILERS
def test_evidence_that_holds_no_more_takes_nobody_back(yard, registry, three, back, kinds, spoil):
    before, moves = registry.aliases(), kinds()
    spoil(yard, (yard.root / registry.history("stage")[1].evidence).parent)
    with pytest.raises(EvidenceError):
        back()
    with pytest.raises(EvidenceError):
        back(rehearse)
    assert (registry.aliases(), kinds()) == (before, moves)


def test_another_certificate_in_the_place_of_the_evidence_takes_nobody_back(yard, registry, three, back, own):
    place = (yard.root / registry.history("stage")[1].evidence).parent
    make_certificate(place, MadeUp(candidate="b", baseline="z"), own)
    with pytest.raises(EvidenceError, match="is not the evidence on which stage served b@1"):
        back()


def test_a_rehearsal_changes_nothing(yard, registry, three, back):
    before = registry.history(), list(yard.journal.read())
    assert back(rehearse, to="a@1").label == "a@1"
    assert (registry.history(), list(yard.journal.read())) == before


def test_a_drill_works_and_leaves_only_a_note(yard, registry, three, back):
    before = registry.history(), registry.aliases()
    found = back(drill, reason="")
    assert found.move.label == "b@1"
    assert found.faults == ()
    assert found.notes == ("where b@1 lies is not on record",)
    assert (registry.history(), registry.aliases()) == before
    (entry,) = [entry for entry in yard.journal.read() if entry.kind == "rollback.drilled"]
    assert (entry.data["alias"], entry.data["to"], entry.data["faults"]) == ("stage", "b@1", [])
    assert audit(yard, registry).faults == ()


@SPOILERS
def test_a_drill_finds_evidence_that_is_gone(yard, registry, three, back, spoil):
    spoil(yard, (yard.root / registry.history("stage")[1].evidence).parent)
    assert len(back(drill).faults) == 1
    assert len(back(drill, to="a@1").faults) == (spoil is _distrust)


def test_a_drill_finds_a_model_that_is_gone_or_changed(
    yard, registry, tmp_path, promoted, own, certificate, back
):
    weights = tmp_path / "weights"
    weights.write_text("1 2 3")
    digest = digest_path(weights)
    ArtifactStore(yard.artifacts_dir).put(weights, kind="checkpoint")
    assert register(yard, registry, Candidate(name="m", digest=digest)).stored
    report = certificate("m", "x", more={"candidate": {"name": "m", "digest": digest, "identity": {}}})
    promoted("m", over="x", evidence=report)
    over_m = certificate("a", "m", more={"baseline": {"name": "m", "digest": digest, "identity": {}}})
    promoted("a", over="m", evidence=over_m)
    assert back(drill).faults == back(drill).notes == ()
    content = ArtifactStore(yard.artifacts_dir).path(digest)
    content.write_text("1 2 4")
    assert "was changed on disk" in back(drill).faults[0]
    content.unlink()
    assert "is not in" in back(drill).faults[0]


def test_a_drill_asks_the_pool_entry_whether_it_is_still_the_model(
    yard, registry, promoted, certificate, back
):
    answers = yard.root.parent / "answers.jsonl"
    answers.write_text('{"model": "r", "id": "q", "text": "right"}\n')
    entry = {"name": "r", "engine": "replay", "answers": "answers.jsonl"}
    digest = read_entry(entry, place="r", folder=answers.parent).digest
    register(yard, registry, Candidate(name="r", digest=digest, entry=entry))
    r = {"name": "r", "digest": digest, "identity": {}}
    promoted("r", over="x", evidence=certificate("r", "x", more={"candidate": r}))
    promoted("a", over="r", evidence=certificate("a", "r", more={"baseline": r}))
    assert back(drill).faults == back(drill).notes == ()
    answers.write_text('{"model": "r", "id": "q", "text": "another"}\n')
    assert "what its entry names is sha256:" in back(drill).faults[0]
    answers.unlink()
    assert "answers.jsonl" in back(drill).faults[0]


def test_the_entry_of_a_drill_is_not_a_move(yard, registry, three, back):
    back(drill)
    entry = json.loads((yard.root / "journal" / "journal.jsonl").read_text().splitlines()[-1])
    assert entry["kind"] == "rollback.drilled"
    assert back().label == "b@1"
