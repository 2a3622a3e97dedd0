"""The contract of a registry's database, over SQLite and PostgreSQL."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from modelyard.core.errors import RegistryError
from modelyard.registry.records import Alias, Move, Registration
from modelyard.registry.store import Registry, approval_key, open_registry

Open = Callable[[], Registry]


def registration(number: int = 1, **changes: Any) -> Registration:
    told = {
        "id": f"r{number}", "yard": "y", "name": "small", "digest": f"sha256:{number:064x}",
        "entry": {"engine": "replay", "n": number}, "run_id": None, "trained_by": "", "created_at": "now",
        "parent_digest": None, "stored": False,
    }  # fmt: skip
    return Registration(**{**told, **changes})


def move(version: int, before: int | None = None, **changes: Any) -> Move:
    generation = changes.get("generation", 1 if before is None else 2)
    told = {
        "id": uuid.uuid4().hex, "yard": "y", "alias": "stage", "generation": generation, "kind": "promote",
        "name": "small", "version": version, "to_digest": f"sha256:{version:064x}",
        "from_digest": None if before is None else f"sha256:{before:064x}", "actor": "ann", "at": "now",
        "reason": "better", "evidence_digest": "sha256:e", "evidence": "evidence/e",
        "approvals": ({"approver": "bob", "n": 1},), "required": 1,
    }  # fmt: skip
    return Move(**{**told, **changes})


def approval(**changes: Any) -> dict[str, Any]:
    told = {"alias": "prod", "generation": 1, "evidence_digest": "e", "digest": "d", "approver": "bob"}
    key = changes.pop("key", "k1")
    return {**told, "signature": {"key_id": key}, **changes}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database, or of an empty schema of one."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'registry.db'}"
        return
    base = request.getfixturevalue("postgres_url")
    name = f"registry_{uuid.uuid4().hex}"
    engine = sqlalchemy.create_engine(base.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA {name}"))
    yield f"{base}?options=-csearch_path%3D{name}"
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"DROP SCHEMA {name} CASCADE"))
    engine.dispose()


@pytest.fixture
def open_one(url: str) -> Iterator[Open]:
    """Opens the registry as one process after another would."""
    opened: list[Registry] = []

    def open_again() -> Registry:
        opened.append(open_registry(url))
        return opened[-1]

    yield open_again
    for each in opened:
        each.close()


@pytest.fixture
def registry(open_one: Open) -> Registry:
    """A registry of three versions."""
    opened = open_one()
    for number in (1, 2, 3):
        opened.add_version(registration(number))
    return opened


def test_a_new_database_gets_its_tables_and_keeps_its_id(open_one):
    first, second = open_one(), open_one()
    assert first.id == second.id
    assert first.versions() == first.history() == first.approvals() == ()
    assert dict(first.aliases()) == {}


def test_versions_are_numbered_by_name_and_read_back_whole(registry, open_one):
    other = registry.add_version(registration(9, name="large", run_id="run-1", trained_by="k", stored=True))
    assert other.label == "large@1"
    assert [each.label for each in open_one().versions()] == ["large@1", "small@1", "small@2", "small@3"]
    assert open_one().version("large").record() == {
        **registration(9, name="large", run_id="run-1", trained_by="k", stored=True).record(), "version": 1
    }  # fmt: skip
    assert registry.version("small").version == 3
    assert registry.version("small", 2).digest == registration(2).digest


def test_the_same_registration_again_changes_nothing(registry):
    assert registry.add_version(registration(2)).version == 2
    assert len(registry.versions()) == 3


def test_a_digest_is_one_version_of_a_name(registry):
    with pytest.raises(RegistryError, match=r"small: sha256:0+2 is registered"):
        registry.add_version(registration(2, id="another"))
    assert registry.add_version(registration(2, id="another", name="same-by-another-name")).version == 1


@pytest.mark.parametrize(("number", "said"), [(None, "nothing: is not registered"), (7, "small@7: is not")])
def test_a_version_that_is_not_there_is_told_with_those_that_are(registry, number, said):
    with pytest.raises(RegistryError, match=said) as caught:
        registry.version("nothing" if number is None else "small", number)
    assert "small@1, small@2, small@3" in str(caught.value)


def test_a_move_changes_alias_and_history_together(registry, open_one):
    first, second = move(1, kind="bootstrap"), move(2, before=1)
    registry.apply(first)
    registry.apply(second)
    again = open_one()
    assert again.aliases() == {
        "stage": Alias(alias="stage", name="small", version=2, digest=second.to_digest, generation=2)
    }
    assert again.history("stage") == (first, second)
    assert again.history("prod") == ()
    assert again.has(second)
    assert not again.has(move(2, before=1))


@pytest.mark.parametrize(
    "late",
    [
        move(3, before=1, generation=2), move(3, generation=1), move(3, before=2, generation=4),
        move(3, before=1, generation=3), move(3, generation=3),
    ],
    ids=["same generation", "first again", "gap", "other version served", "nothing served"],
)  # fmt: skip
def test_a_move_out_of_turn_is_refused_and_leaves_nothing(registry, late):
    registry.apply(move(1))
    registry.apply(move(2, before=1))
    before = registry.aliases(), registry.history()
    with pytest.raises(RegistryError, match=r"stage: was moved meanwhile by ann to small@2 \(generation 2"):
        registry.apply(late)
    assert (registry.aliases(), registry.history()) == before


def test_prod_takes_only_what_stage_serves(registry):
    with pytest.raises(RegistryError, match="stage serves nothing"):
        registry.apply(move(1, alias="prod"))
    registry.apply(move(1))
    with pytest.raises(RegistryError, match=r"prod: small@2 .* since stage serves sha256"):
        registry.apply(move(2, alias="prod"))
    registry.apply(move(1, alias="prod"))
    registry.apply(move(2, before=1))
    registry.apply(
        move(3, before=1, alias="prod", kind="rollback")
    )  # back to what it had, whatever stage has
    assert registry.aliases()["prod"].version == 3


def test_a_rehearsal_does_it_all_and_takes_it_back(registry):
    registry.apply(move(1))
    before = registry.aliases(), registry.history()
    registry.apply(move(2, before=1), rehearse=True)
    assert (registry.aliases(), registry.history()) == before
    with pytest.raises(RegistryError, match="moved meanwhile"):
        registry.apply(move(2), rehearse=True)


def test_an_alias_serves_only_versions_that_are_registered(registry):
    with pytest.raises(RegistryError, match="registry cannot be used"):
        registry.apply(move(8))
    assert dict(registry.aliases()) == {}
    assert registry.history() == ()


def test_of_a_keys_approvals_of_one_move_the_first_stands(registry):
    first = approval()
    assert registry.add_approval(first)
    assert not registry.add_approval(approval(approver="somebody else"))
    assert registry.add_approval(approval(key="k2"))
    assert registry.add_approval(approval(generation=2))
    assert registry.add_approval(approval(alias="stage"))
    assert first in registry.approvals()
    assert len(registry.approvals()) == 4
    assert {approval_key(each)[-1] for each in registry.approvals("prod")} == {"k1", "k2"}


def test_of_many_threads_that_move_one_alias_one_wins(registry, open_one):
    registry.apply(move(1))
    rivals = [
        (open_one(), replace(move(2 + number % 2, before=1), actor=f"p{number}")) for number in range(6)
    ]
    won, lost = [], []

    def run(mine: Registry, wanted: Move) -> None:
        try:
            mine.apply(wanted)
            won.append(wanted)
        except RegistryError as error:
            lost.append(str(error))

    threads = [threading.Thread(target=run, args=rival) for rival in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 5
    assert all(f"moved meanwhile by {won[0].actor}" in said for said in lost)
    assert registry.history("stage")[-1] == won[0]


def test_those_who_open_a_new_database_at_once_agree(url):
    ready, ids = threading.Barrier(4), []

    def run() -> None:
        ready.wait()
        with open_registry(url) as mine:
            ids.append(mine.id)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1


@pytest.mark.parametrize(("number", "remedy"), [(0, "use the version that wrote it"), (2, "newer modelyard")])
def test_another_schema_is_refused(url, open_one, number, remedy):
    open_one()
    _execute(url, f"UPDATE registry_schema SET version = {number}")
    with pytest.raises(
        RegistryError, match=f"schema {number} where this version of modelyard has 1; .*{remedy}"
    ):
        open_registry(url)


def test_tables_without_their_version_are_refused(url, open_one):
    open_one()
    _execute(url, "DELETE FROM registry_schema")
    with pytest.raises(RegistryError, match="not their version"):
        open_registry(url)


def test_a_table_that_is_gone_is_told(url, registry):
    _execute(url, "DROP TABLE registry_approvals")
    with pytest.raises(RegistryError, match="registry cannot be used"):
        registry.approvals()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://u:geheim@127.0.0.1:1/x", "cannot be used"),
        ("mysql://u:geheim@h/x", "mysql is not supported"),
        ("u:geheim@h", "is no URL"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////dev/null/no/registry.db", "cannot be used"),
    ],
)
def test_an_address_that_cannot_be_opened_is_told_without_its_password(address, said):
    with pytest.raises(RegistryError, match=said) as caught:
        open_registry(address)
    assert "geheim" not in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "registry.db").write_text("not a database, " * 100)
    with pytest.raises(RegistryError, match=r"registry\.db: the registry cannot be used"):
        open_registry(f"sqlite:///{tmp_path / 'registry.db'}")


def _execute(url: str, statement: str) -> None:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()
