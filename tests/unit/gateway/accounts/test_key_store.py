"""The store of keys and a worker's ring of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tests.unit.gateway.accounts.conftest import NOON_S, Hands

from modelyard.core.errors import GatewayError
from modelyard.gateway.accounts.key_ring import KeyProblem, KeyRing
from modelyard.gateway.accounts.key_store import KeyStore
from modelyard.gateway.accounts.keys import KeyLimits, KeyRequest, parse_spend_limit

FULL = KeyRequest(
    name="batch", expires_in_s=3600.0, models=frozenset({"a", "b"}), log_prompts=True,
    limits=KeyLimits(spend=parse_spend_limit("10/day"), rpm=60, tpm=1000, parallel=4),
)  # fmt: skip


def test_a_key_is_kept_as_it_was_made(folder: Path, clock: Hands) -> None:
    with KeyStore(folder, clock=clock) as store:
        key, token = store.create(FULL)
    assert (key.name, key.models, key.limits, key.log_prompts) == (
        FULL.name, FULL.models, FULL.limits, True,
    )  # fmt: skip
    assert (key.created_at_s, key.expires_at_s, key.revoked_at_s) == (NOON_S, NOON_S + 3600, None)
    assert token.startswith(f"sk-my-{key.id}-") and token.endswith(key.last)
    with KeyStore(folder) as again:
        assert again.get(key.id) == key
        assert again.list() == [key]


def test_models_that_may_be_asked_for(folder: Path) -> None:
    with KeyStore(folder) as store:
        some, all_ = store.create(FULL)[0], store.create(KeyRequest())[0]
    assert [some.allows(name) for name in ("a", "b", "c")] == [True, True, False]
    assert all_.allows("c")


def test_no_file_holds_the_token(folder: Path) -> None:
    with KeyStore(folder) as store:
        tokens = [store.create(FULL)[1] for _ in range(5)]
        found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        secrets = [token.split("-", 3)[3].encode() for token in tokens]
        assert found and not [p for p, data in found.items() for s in secrets if s in data]


def test_a_ring_finds_what_is_good_and_tells_the_rest_apart(folder: Path, clock: Hands) -> None:
    with KeyStore(folder, clock=clock) as store, KeyStore(folder) as read:
        good, token = store.create(KeyRequest())
        short, short_token = store.create(FULL)
        gone, gone_token = store.create(KeyRequest())
        store.revoke(gone.id)
        ring = KeyRing(read)
    assert len(ring) == 3
    assert ring.find(token.encode(), NOON_S) == good
    assert ring.find(short_token.encode(), NOON_S + 3599.9) == short
    assert ring.find(short_token.encode(), NOON_S + 3600) is KeyProblem.EXPIRED
    assert ring.find(gone_token.encode(), NOON_S) is KeyProblem.REVOKED
    for wrong in (b"", token.encode()[:-1], token.encode() + b"x", b"\xff\x00"):
        assert ring.find(wrong, NOON_S) is KeyProblem.UNKNOWN


def test_a_revocation_is_seen_at_the_next_refresh(folder: Path) -> None:
    with KeyStore(folder) as store, KeyStore(folder) as read:
        key, token = store.create(KeyRequest())
        ring = KeyRing(read)
        assert not ring.refresh()
        store.revoke(key.id)
        assert ring.find(token.encode(), NOON_S) == key
        assert ring.refresh()
        assert ring.find(token.encode(), NOON_S) is KeyProblem.REVOKED
        assert not ring.refresh()


def test_a_refresh_reads_only_what_is_new_or_changed(folder: Path) -> None:
    with KeyStore(folder) as store, KeyStore(folder) as read:
        (same, token), (gone, _) = store.create(FULL), store.create(FULL)
        ring = KeyRing(read)
        before = ring.find(token.encode(), 0.0)
        store.revoke(gone.id)
        new, new_token = store.create(KeyRequest())
        assert ring.refresh()
        assert ring.find(token.encode(), 0.0) is before == same
        assert ring.find(new_token.encode(), 0.0) == new
        assert len(ring) == 3


def test_revoking_again_changes_nothing_and_revoking_nothing_is_an_error(folder: Path, clock: Hands) -> None:
    with KeyStore(folder, clock=clock) as store:
        key, _ = store.create(KeyRequest())
        first = store.revoke(key.id)
        clock.now_s += 100
        assert store.revoke(key.id) == first
        with pytest.raises(
            GatewayError, match="key = nobody: there is none with this id; see `modelyard keys list`"
        ):
            store.revoke("nobody")


def test_a_newer_file_is_refused(folder: Path) -> None:
    KeyStore(folder).close()
    path = folder / "keys.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(
        GatewayError, match=r"keys\.db: holds virtual keys of version 9 where .* reads 1; use the"
    ):
        KeyStore(folder)


def test_what_is_no_database_is_told(folder: Path) -> None:
    folder.mkdir()
    (folder / "keys.db").write_text("these are not the keys you are looking for\n" * 100)
    with pytest.raises(GatewayError, match=r"keys\.db: cannot be used \(file is not a database\)"):
        KeyStore(folder)
