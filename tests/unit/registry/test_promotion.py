"""Promotion: what lets an alias move, and everything that does not."""

from __future__ import annotations

import json
import shutil

import pytest

from modelyard.core.errors import DocumentError, EvidenceError, RegistryError
from modelyard.core.signing import TRUSTED
from modelyard.evaluation.pool import read_entry
from modelyard.registry.audit import audit
from modelyard.registry.promotion import Promotion, promote, rehearse
from modelyard.registry.rollback import Rollback, rollback
from modelyard.registry.versions import Candidate, register
from modelyard.testing.certificates import model_digest


def test_the_first_move_of_an_alias_and_the_next(yard, registry, promoted, kinds):
    first = promoted("a", over="x", reason="the first")
    assert (first.result, first.move.kind, first.move.generation) == ("moved", "bootstrap", 1)
    second = promoted("b", over="a")
    assert (second.result, second.move.kind, second.move.from_digest) == (
        "moved",
        "promote",
        model_digest("a"),
    )
    assert registry.aliases()["stage"].label == "b@1"
    assert registry.history("stage") == (first.move, second.move)
    assert [move.reason for move in registry.history()] == ["the first", "certificate b-over-a passed"]
    assert kinds() == ["alias.intent", "alias.moved"] * 2
    assert audit(yard, registry).faults == ()


def test_evidence_is_kept_in_the_yard_and_outlives_its_origin(yard, registry, promoted, certificate):
    report = certificate("a", "x")
    move = promoted("a", over="x", evidence=report).move
    shutil.rmtree(report.parent)
    kept = yard.root / move.evidence
    assert sorted(path.name for path in kept.parent.iterdir()) == [
        "answers.jsonl", "pack.jsonl", "paired_eval_report.json",
    ]  # fmt: skip
    assert move.evidence_digest.removeprefix("sha256:") == kept.parent.name
    assert audit(yard, registry).faults == ()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"wins": 6, "losses": 6}, "its verdict is 'inconclusive' where 'pass' is required"),
        ({"wins": 0, "losses": 12}, "its verdict is 'fail' where 'pass' is required"),
        ({"more": {"dry_run": True}}, "comes from a rehearsal"),
        ({"more": {"scoring": {"mode": "dry_run_fixture_scores"}}}, "which compares no models"),
        ({"more": {"schema": "modelyard.paired_eval_report/2"}}, "does not have the schema"),
        ({"more": {"raw_outputs": "../answers.jsonl"}}, "where a file beside the report is required"),
        ({"more": {"raw_outputs_digest": "sha256:" + "0" * 64}}, "the report states the digest"),
        ({"more": {"verdict": "pass"}, "wins": 6, "losses": 6}, "verdict: .*'pass'"),
    ],
    ids=["inconclusive", "failed", "dry run", "fixtures", "schema", "elsewhere", "other answers", "a lie"],
)  # fmt: skip
def test_a_certificate_that_proves_nothing_moves_nothing(registry, promoted, certificate, kinds, made, said):
    with pytest.raises(EvidenceError, match=said):
        promoted("a", over="x", evidence=certificate("a", "x", **made))
    assert dict(registry.aliases()) == {}
    assert kinds() == []


def test_a_certificate_that_was_changed_moves_nothing(registry, promoted, certificate):
    report = certificate("a", "x", wins=6, losses=6)
    record = json.loads(report.read_text())
    report.write_text(json.dumps({**record, "verdict": "pass"}))
    with pytest.raises(EvidenceError, match="signature"):
        promoted("a", over="x", evidence=report)
    answers = report.with_name("answers.jsonl")
    report.write_text(json.dumps(record))
    answers.write_bytes(answers.read_bytes().replace(b'"score":0', b'"score":1', 1))
    with pytest.raises(EvidenceError, match=rf"{report}: .*answers.jsonl: the report states the digest"):
        promoted("a", over="x", evidence=report)
    assert dict(registry.aliases()) == {}


def test_only_the_packs_that_the_policy_names_move_an_alias(yard, registry, promoted, certificate):
    allowed, other = certificate("a", "x"), certificate("a", "x", items=14)
    named = json.loads(allowed.read_text())["prompt_pack"]["snapshot_digest"]
    (yard.root / "promotion.json").write_text(json.dumps({"stage": {"packs": [named]}}))
    claimed = {"prompt_pack": {**json.loads(other.read_text())["prompt_pack"], "digest": named}}
    for report in (other, certificate("a", "x", items=14, more=claimed)):
        with pytest.raises(RegistryError, match=r"is none of the 1 that promotion\.json allows"):
            promoted("a", over="x", evidence=report)
    assert dict(registry.aliases()) == {}
    assert promoted("a", over="x", evidence=allowed).result == "moved"


def test_a_signer_who_is_not_trusted_moves_nothing(promoted, certificate, person):
    with pytest.raises(EvidenceError, match="trusted"):
        promoted("a", over="x", evidence=certificate("a", "x", signer=person("eve", trusted=False)))
    assert promoted("a", over="x", evidence=certificate("a", "x", signer=person("cy"))).result == "moved"


@pytest.mark.parametrize("name", ["none.json", "text.json", "list.json", "folder"])
def test_what_is_no_report_is_told(tmp_path, promoted, name):
    (tmp_path / "text.json").write_text("x")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EvidenceError, match=name):
        promoted("a", over="x", evidence=tmp_path / name)


def test_a_certificate_of_another_model_moves_nothing(promoted, certificate):
    with pytest.raises(
        RegistryError, match=r"the certificate is of sha256:.*name the version that was certified"
    ):
        promoted("b", over="x", evidence=certificate("a", "x"))


def test_a_certificate_against_another_baseline_moves_nothing(promoted):
    promoted("a", over="x")
    with pytest.raises(
        RegistryError, match=r"compares it with sha256:.*stage serves a@1 .*certify it against that"
    ):
        promoted("b", over="x")


def test_a_model_that_is_not_registered_is_told(promoted, certificate):
    with pytest.raises(RegistryError, match="d: is not registered"):
        promoted("d", over="x")


def test_a_bare_name_is_the_version_that_was_certified(yard, registry, promoted, certificate):
    register(yard, registry, Candidate(name="a", digest=model_digest("a2")))
    assert promoted("a", over="x", evidence=certificate("a", "x")).move.version == 1
    assert promoted("a", over="a", evidence=certificate("a2", "a")).move.version == 2


def test_prod_takes_only_what_stage_serves(promoted, policy, registry):
    policy(prod=0)
    with pytest.raises(RegistryError, match="stage serves nothing, and prod takes only what stage serves"):
        promoted("a", over="x", alias="prod")
    promoted("a", over="x")
    promoted("a", over="x", alias="prod")
    promoted("b", over="a")
    with pytest.raises(RegistryError, match=r"stage serves b@1"):
        promoted("c", over="a", alias="prod")
    promoted("b", over="a", alias="prod")
    assert {name: alias.label for name, alias in registry.aliases().items()} == {
        "prod": "b@1",
        "stage": "b@1",
    }


def test_the_same_promotion_again_is_done_already(promoted, certificate, kinds):
    report = certificate("a", "x")
    first, again = promoted("a", over="x", evidence=report), promoted("a", over="x", evidence=report)
    assert (again.result, again.move) == ("already", first.move)
    assert kinds() == ["alias.intent", "alias.moved"]


def test_a_certificate_counts_once_for_an_alias(yard, registry, promoted, certificate, policy):
    policy(prod=0)
    report = certificate("b", "a")
    promoted("a", over="x")
    promoted("a", over="x", alias="prod")
    promoted("b", over="a", evidence=report)
    promoted("b", over="a", alias="prod", evidence=report)  # another alias: counts
    promoted("a", over="b")
    with pytest.raises(RegistryError, match="was used for generation 2 of stage, and counts once"):
        promoted("b", over="a", evidence=report)
    assert promoted("b", over="a", evidence=certificate("b", "a", seed=1)).result == "moved"


def test_what_is_served_already_is_not_promoted_again(promoted):
    promoted("a", over="x")
    with pytest.raises(RegistryError, match="stage serves it already"):
        promoted("a", over="b")


def test_two_of_three_approve(yard, registry, promoted, certificate, policy, person, kinds):
    policy(prod=2)
    ann, bob = person("ann"), person("bob")
    person("cy")
    report = certificate("a", "x")
    promoted("a", over="x", evidence=report)
    nobody = promoted("a", over="x", alias="prod", evidence=report)
    assert (nobody.result, nobody.tally.missing, nobody.enough) == ("waiting", 2, False)
    for _ in range(2):
        one = promoted("a", over="x", alias="prod", evidence=report, signer=ann)
        assert (one.result, one.tally.missing, len(one.tally.counted)) == ("waiting", 1, 1)
    assert "prod" not in registry.aliases()
    both = promoted("a", over="x", alias="prod", evidence=report, signer=bob, actor="bob")
    assert both.result == "moved"
    (moved,) = registry.history("prod")
    assert {each["signature"]["key_id"] for each in moved.approvals} == {ann.key_id, bob.key_id}
    assert moved.required == 2
    assert kinds().count("alias.intent") == 2
    assert sum(entry.kind == "approval.given" for entry in yard.journal.read()) == 2
    assert audit(yard, registry).faults == ()


def test_who_trained_a_model_does_not_approve_it_under_any_name(
    yard, registry, certificate, person, promoted
):
    ann, bob = person("ann"), person("bob")
    for name, trainer in (("d", ann.key_id), ("the-same", "")):
        register(yard, registry, Candidate(name=name, digest=model_digest("d"), trained_by=trainer))
    report = certificate("d", "x")
    promoted("the-same", over="x", evidence=report)
    with pytest.raises(RegistryError, match="trained the model, and who trained it cannot approve"):
        promoted("the-same", over="x", alias="prod", evidence=report, signer=ann, actor="somebody")
    assert registry.approvals() == ()
    assert promoted("the-same", over="x", alias="prod", evidence=report, signer=bob).result == "moved"


def test_who_signed_the_certificate_does_not_approve_alone(promoted, certificate, own, person):
    report = certificate("a", "x")
    promoted("a", over="x", evidence=report)
    alone = promoted("a", over="x", alias="prod", evidence=report, signer=own)
    assert (alone.result, alone.tally.certifier_alone) == ("waiting", True)
    assert promoted("a", over="x", alias="prod", evidence=report, signer=person("bob")).result == "moved"


def test_an_approval_by_a_key_that_is_not_trusted_is_refused(registry, promoted, certificate, person):
    report = certificate("a", "x")
    promoted("a", over="x", evidence=report)
    with pytest.raises(RegistryError, match="none of the 1 trusted keys"):
        promoted("a", over="x", alias="prod", evidence=report, signer=person("eve", trusted=False))
    assert registry.approvals() == ()


def test_an_approver_whose_key_was_taken_out_counts_no_more(yard, promoted, certificate, policy, person):
    policy(prod=2)
    report = certificate("a", "x")
    promoted("a", over="x", evidence=report)
    promoted("a", over="x", alias="prod", evidence=report, signer=person("ann"))
    (yard.keys_dir / TRUSTED / "ann.pem").unlink()
    later = promoted("a", over="x", alias="prod", evidence=report, signer=person("bob"))
    assert (later.result, later.tally.missing) == ("waiting", 1)
    assert later.tally.refused[0].startswith("ann: the record is signed by")


def test_approvals_lapse_when_the_alias_moves(registry, promoted, certificate, policy, person):
    ann, bob = person("ann"), person("bob")
    over_a = certificate("b", "a")
    policy(prod=0)
    for name, over in (("a", "x"), ("c", "a")):
        promoted(name, over=over)
        promoted(name, over=over, alias="prod") if name == "a" else None
    policy(prod=2)
    promoted("b", over="c")
    assert promoted("b", over="a", alias="prod", evidence=over_a, signer=ann).tally.missing == 1
    promoted("c", over="b")
    over_c = certificate("c", "a", seed=1)
    promoted("c", over="a", alias="prod", evidence=over_c, signer=ann)
    promoted("c", over="a", alias="prod", evidence=over_c, signer=bob)
    promoted("b", over="c", evidence=certificate("b", "c", seed=1))
    with pytest.raises(RegistryError, match="prod serves c@1"):
        promoted("b", over="a", alias="prod", evidence=over_a, signer=bob)
    again = promoted("b", over="c", alias="prod", signer=bob)
    assert (again.result, again.tally.missing) == ("waiting", 1)
    assert len(registry.approvals("prod")) == 4


def test_a_rehearsal_checks_and_changes_nothing(yard, registry, certificate, person, kinds):
    report = certificate("a", "x")
    before = sorted(path for path in yard.root.rglob("*"))
    told = {"version": "a", "evidence": report, "actor": "ann"}
    would = rehearse(yard, registry, Promotion(**told, alias="stage"))
    assert would.result == "would_move"
    assert sorted(path for path in yard.root.rglob("*")) == before
    assert kinds() == []
    promote(yard, registry, Promotion(**told, alias="stage"))
    assert rehearse(yard, registry, Promotion(**told, alias="stage")).result == "already"
    assert rehearse(yard, registry, Promotion(**told, alias="prod")).result == "would_wait"
    assert (
        rehearse(yard, registry, Promotion(**told, alias="prod", signer=person("b"))).result == "would_move"
    )
    assert registry.approvals() == ()
    with pytest.raises(RegistryError, match="the certificate is of"):
        rehearse(yard, registry, Promotion(**{**told, "version": "b"}, alias="stage"))


@pytest.mark.parametrize(
    ("changes", "said"), [({"alias": "live"}, "'live' is no alias"), ({"actor": " "}, "name of who asks")]
)
def test_what_cannot_be_asked(promoted, changes, said):
    with pytest.raises(RegistryError, match=said):
        promoted("a", over="x", **changes)


def test_a_policy_that_cannot_be_read_moves_nothing(yard, promoted, registry):
    (yard.root / "promotion.json").write_text('{"stage": {"approvals": "none"}}')
    with pytest.raises(DocumentError, match=r"stage\.approvals"):
        promoted("a", over="x")
    assert dict(registry.aliases()) == {}


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"nominal_alpha": 0.49}, r"nominal_alpha 0.49, where promotion.json allows 0.05 \(max_alpha\)"),
        ({"alternative": "non_inferiority", "margin": 0.9}, r"margin 0.9, where .* 0.05 \(max_margin\)"),
        ({"critical_failures_allowed": 9}, r"critical_failures_allowed 9, where .* allows 0 "),
    ],
)
def test_a_certificate_of_a_weak_design_moves_nothing(yard, registry, promoted, certificate, declared, said):
    evidence = certificate("a", "x", declared=declared)
    with pytest.raises(RegistryError, match=said):
        promoted("a", over="x", evidence=evidence)
    lax = {"max_alpha": 0.499, "max_margin": 0.95, "max_critical_failures": 9}
    (yard.root / "promotion.json").write_text(json.dumps({"stage": lax}))
    assert promoted("a", over="x", evidence=evidence).result == "moved"


def test_a_certificate_counts_once_however_its_file_is_laid_out(yard, registry, promoted, certificate):
    promoted("a", over="x")
    evidence = certificate("b", "a")
    promoted("b", over="a", evidence=evidence)
    rollback(yard, registry, Rollback(alias="stage", actor="ann", reason="it is slow"))
    evidence.write_text(json.dumps(json.loads(evidence.read_text()), indent=7))
    with pytest.raises(RegistryError, match="the certificate was used for generation 2 of stage"):
        promoted("b", over="a", evidence=evidence)
    assert registry.aliases()["stage"].label == "a@1"


def test_a_trainer_known_by_name_cannot_approve_under_another(yard, registry, promoted, person, policy):
    register(yard, registry, Candidate(name="d", digest=model_digest("d"), trained_by="tom"))
    tom = person("tom")
    policy(stage=1)
    with pytest.raises(RegistryError, match="does not count: trained the model"):
        promoted("d", over="x", signer=tom, actor="somebody else")
    assert promoted("d", over="x", signer=person("bea"), actor="tam").result == "moved"


def test_a_model_that_was_changed_after_its_certificate_is_not_promoted(
    yard, registry, promoted, certificate
):
    model = yard.root.parent / "model.txt"
    model.write_text("as it was certified")
    entry = {"name": "e", "engine": "command", "run": "cat", "inputs": ["model.txt"]}
    digest = read_entry(entry, place="here", folder=yard.root.parent).digest
    register(yard, registry, Candidate(name="e", digest=digest, entry=entry))
    evidence = certificate("e", "x", more={"candidate": {"name": "e", "digest": digest, "identity": {}}})
    model.write_text("swapped")
    with pytest.raises(RegistryError, match=r"what its entry names is sha256:.* now"):
        promoted("e", over="x", evidence=evidence)
    model.write_text("as it was certified")
    assert promoted("e", over="x", evidence=evidence).result == "moved"
