"""Whatever is changed behind the back of modelyard is found, and where."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import sqlalchemy

from modelyard.core.signing import TRUSTED
from modelyard.registry.audit import audit
from modelyard.registry.ledger import ABANDONED, note
from modelyard.registry.promotion import Promotion, promote
from modelyard.registry.rollback import Rollback, rollback
from modelyard.registry.store import open_registry
from modelyard.registry.versions import Candidate, register
from modelyard.runs.yard import open_yard
from modelyard.testing.certificates import model_digest


@pytest.fixture
def served(yard, registry, promoted, certificate, person):
    """Stage went a, b, back to a; prod serves a, which Bob approved."""
    report = certificate("a", "x")
    promoted("a", over="x", evidence=report)
    promoted("a", over="x", alias="prod", evidence=report, signer=person("bob"))
    promoted("b", over="a")
    rollback(yard, registry, Rollback(alias="stage", actor="ann", reason="it loops"))
    assert audit(yard, registry).faults == ()
    return registry


@pytest.fixture
def sql(registry):
    """Change the database by hand."""

    def execute(statement, **values):
        engine = sqlalchemy.create_engine(f"sqlite:///{registry.place}", poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement), values)

    return execute


B = model_digest("b")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            f"UPDATE registry_aliases SET name = 'b', digest = '{B}' WHERE alias = 'prod'",
            "prod: serves b@1",
        ),
        ("UPDATE registry_aliases SET generation = 9 WHERE alias = 'prod'", "prod: serves .* generation 9"),
        ("DELETE FROM registry_aliases WHERE alias = 'prod'", "prod: has a history, and its alias is gone"),
        ("DELETE FROM registry_history WHERE alias = 'prod'", "prod: serves a@1 without any history"),
        (
            "DELETE FROM registry_history WHERE alias = 'stage' AND generation = 2",
            "stage: generation 2 is missing",
        ),
        (
            "DELETE FROM registry_history WHERE alias = 'stage' AND generation = 3",
            "stage generation 3: is in the journal, and its row was removed",
        ),
        ("UPDATE registry_history SET actor = 'eve' WHERE generation = 2", "stage generation 2: is not as"),
        ("UPDATE registry_history SET reason = ''", "stage generation 3: is not as it was meant"),
        ("UPDATE registry_history SET yard = 'elsewhere'", "generation 1: is not as it was meant"),
        ("UPDATE registry_history SET id = 'x' WHERE generation = 2", "the journal has no intent of it"),
        (
            "UPDATE registry_history SET required = 0, approvals = '[]' WHERE alias = 'prod'",
            "prod generation 1: is not as it was meant",
        ),
        (
            "UPDATE registry_history SET approvals = '[]' WHERE alias = 'prod'",
            "prod generation 1: 1 approvals were required, 0 hold",
        ),
        ("UPDATE registry_versions SET trained_by = 'nobody' WHERE name = 'a'", "a@1: is not as it was"),
        ("UPDATE registry_versions SET id = 'x' WHERE name = 'c'", "c@1: the journal has no registration"),
        ("UPDATE registry_schema SET id = 'x'", "it was replaced"),
    ],
)  # fmt: skip
def test_a_database_that_was_changed_by_hand(yard, served, sql, statement, said):
    sql(statement)
    with open_registry(f"sqlite:///{served.place}") as changed:
        faults = audit(yard, changed).faults
    assert any(re.search(said, fault) for fault in faults), faults


def test_an_alias_that_was_moved_by_hand_with_a_history(yard, served, sql):
    (row,) = served.history("prod")
    forged = replace(row, id="forged", generation=2, name="b", to_digest=B, from_digest=row.to_digest)
    names = [each for each in forged.record() if each != "approvals"]
    sql(
        f"INSERT INTO registry_history ({', '.join(names)}, approvals) "
        f"VALUES ({', '.join(':' + each for each in names)}, :approvals)",
        **{**forged.record(), "approvals": json.dumps(forged.approvals)},
    )
    sql(f"UPDATE registry_aliases SET generation = 2, name = 'b', digest = '{B}' WHERE alias = 'prod'")
    faults = audit(yard, served).faults
    for said in ("no intent of it", "its certificate is of", "1 approvals were required, 0 hold"):
        assert any(fault.startswith("prod generation 2") and said in fault for fault in faults), (
            said,
            faults,
        )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "is not a certificate's report"),
        (lambda folder: (folder / "answers.jsonl").unlink(), "answers.jsonl"),
        (lambda folder: (folder / "pack.jsonl").write_text(""), "pack.jsonl"),
        (
            lambda folder: (folder / "paired_eval_report.json").write_text(
                (folder / "paired_eval_report.json").read_text().replace('"pass"', '"fail"')
            ),
            "signature",
        ),
    ],
    ids=["folder", "answers", "pack", "report"],
)
def test_evidence_that_was_spoilt(yard, served, spoil, said):
    move = served.history("stage")[1]
    spoil((yard.root / move.evidence).parent)
    (fault,) = audit(yard, served).faults
    assert fault.startswith("stage generation 2: ")
    assert said in fault


@pytest.mark.parametrize(
    ("key", "said"), [("bob", "1 approvals were required, 0 hold"), ("yard-*", "trusted")]
)
def test_a_key_that_counts_no_more(yard, served, key, said):
    (path,) = (yard.keys_dir / TRUSTED).glob(f"{key}.pem")
    path.unlink()
    assert any(said in fault for fault in audit(yard, served).faults)


def test_a_trainer_who_is_known_only_later_is_seen(yard, served, person):
    register(
        yard, served, Candidate(name="alias-of-a", digest=model_digest("a"), trained_by=person("bob").key_id)
    )
    (fault,) = audit(yard, served).faults
    assert "who trained it cannot approve it" in fault


def test_a_rollback_to_what_did_not_stand_beneath(yard, served, sql):
    sql("UPDATE registry_history SET kind = 'rollback' WHERE alias = 'stage' AND generation = 2")
    faults = audit(yard, served).faults
    assert "stage generation 2: went back to b@1, which did not stand beneath what was served" in faults


def test_a_move_that_the_journal_says_was_abandoned(yard, served):
    (move,) = served.history("prod")
    note(yard, served, ABANDONED, {"move": move.id, "alias": "prod", "reason": "r"})
    assert audit(yard, served).faults == ("prod generation 1: the journal says that it was abandoned",)


def test_prod_without_stage(yard, served, sql):
    sql("UPDATE registry_history SET alias = 'other' WHERE alias = 'stage'")
    assert "prod generation 1: stage never served it" in audit(yard, served).faults


def test_moves_of_another_yard_in_a_shared_database_are_counted(yard, registry, promoted, tmp_path):
    promoted("a", over="x")
    other = open_yard(tmp_path / "other", create=True)
    with open_registry(f"sqlite:///{registry.place}") as shared:
        found = audit(other, shared)
    assert (found.moves, found.elsewhere, found.faults) == (1, 1, ())


def test_a_shared_database_cannot_pass_a_row_off_as_anothers(yard, tmp_path, certificate, sql):
    with open_registry(f"sqlite:///{tmp_path / 'shared.db'}") as shared:
        register(yard, shared, Candidate(name="a", digest=model_digest("a")))
        told = {"version": "a", "alias": "stage", "actor": "ann"}
        promote(yard, shared, Promotion(**told, evidence=certificate("a", "x")))
        engine = sqlalchemy.create_engine(f"sqlite:///{shared.place}", poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE registry_history SET yard = 'other', actor = 'eve'"))
        (fault,) = audit(yard, shared).faults
    assert fault == "stage generation 1: is not as it was meant: the row was changed"
