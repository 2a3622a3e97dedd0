"""`modelyard registry sign` and `verify-model`, called as a user does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.errors import RegistryError
from modelyard.runs.yard import open_yard

pytest.importorskip("model_signing", reason="the extra signing is not installed")


@pytest.fixture
def content(call, tmp_path):
    """The stored checkpoint of net@1."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model.safetensors").write_bytes(b"weights")
    yard = open_yard(tmp_path / ".modelyard", create=True)
    store = ArtifactStore(yard.artifacts_dir)
    digest = store.put(tmp_path / "made", kind="checkpoint").digest
    assert call("registry", "register", "net", "--digest", digest).exit_code == 0
    return store.path(digest)


def test_a_version_is_signed_and_verified(call, content):
    unsigned = call("registry", "verify-model", "net")
    assert unsigned.exit_code == 1 and "net@1: no trusted key signed it" in unsigned.stderr
    made = call("registry", "sign", "net@1")
    assert made.exit_code == 0 and made.stdout.startswith("net@1: signed by sha256:"), made.output
    told = call("registry", "verify-model", "net@1")
    assert told.exit_code == 0 and told.stdout.endswith("HOLDS\n") and not told.stderr
    (content / "model.safetensors").unlink()
    damaged = call("registry", "verify-model", "net@1")
    assert isinstance(damaged.exception, RegistryError) and "was changed on disk" in str(damaged.exception)


def test_keys_that_are_not_trusted_count_for_nothing(call, content, tmp_path):
    call("registry", "key", "eve.key")
    by_eve = json.loads(call("registry", "sign", "net", "--key", "eve.key", "--json").stdout)
    alone = json.loads(call("registry", "verify-model", "net", "--json").stdout)
    assert (alone["holds"], alone["signed_by"], len(alone["ignored"])) == (False, [], 1)
    ours = json.loads(call("registry", "sign", "net", "--json").stdout)
    both = json.loads(call("registry", "verify-model", "net", "--json").stdout)
    assert (both["holds"], both["signed_by"]) == (True, [ours["key_id"]])
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "eve.pem").write_text((tmp_path / "eve.key.pub.pem").read_text())
    for_her = call("registry", "verify-model", "net", "--trusted", "people", "--json")
    assert json.loads(for_her.stdout)["signed_by"] == [by_eve["key_id"]]


def test_a_signature_that_does_not_hold_is_told(call, content):
    path = Path(json.loads(call("registry", "sign", "net", "--json").stdout)["signature"])
    bundle = json.loads(path.read_text())
    bundle["dsseEnvelope"]["signatures"] = []
    path.write_text(json.dumps(bundle))
    found = call("registry", "verify-model", "net")
    assert found.exit_code == 1 and "is not what was signed" in found.stderr
    assert found.stdout.endswith("signed by: nobody\nDOES NOT HOLD\n")


def test_a_name_that_looks_like_a_path_is_only_a_name(call, content):
    for command in ("sign", "verify-model"):
        refused = call("registry", command, "../../net@1")
        assert isinstance(refused.exception, RegistryError) and "is not registered" in str(refused.exception)
