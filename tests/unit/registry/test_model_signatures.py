"""Signatures of stored checkpoints: the round trip, every way to tamper, and forged bundles."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import replace

import pytest

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.errors import RegistryError, SignatureError
from modelyard.core.signing import OWN_KEY, TRUSTED, trusted_keys
from modelyard.evidence.dsse import sealed
from modelyard.evidence.in_toto import PAYLOAD_TYPE, statement_of
from modelyard.registry.model_signatures import sign_model, verify_checkpoint, verify_model
from modelyard.registry.versions import Candidate, register

pytest.importorskip("model_signing", reason="the extra signing is not installed")


@pytest.fixture
def made(tmp_path):
    """A checkpoint's folder as training leaves it."""
    folder = tmp_path / "checkpoint"
    (folder / ".git").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 16)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer" / "vocab.txt").write_text("a\nb\n")
    (folder / ".git" / "HEAD").write_text("main")
    return folder


@pytest.fixture
def stored(yard, registry, made):
    """The version of a checkpoint in the content store."""
    artifact = ArtifactStore(yard.artifacts_dir).put(made, kind="checkpoint")
    return register(yard, registry, Candidate(name="net", digest=artifact.digest))


@pytest.fixture
def key(yard, own):
    return yard.keys_dir / OWN_KEY


@pytest.fixture
def trusted(yard, own):
    return trusted_keys(yard.keys_dir / TRUSTED)


@pytest.fixture
def signed(yard, stored, key):
    return sign_model(yard, stored, key, actor="ann")


def test_a_stored_checkpoint_is_signed_and_verified(yard, stored, signed, own, trusted, made):
    assert signed.path == (
        yard.root / "signatures" / stored.digest[7:] / f"{own.key_id.removeprefix('sha256:')}.sig"
    )
    (found,) = verify_model(yard, stored, trusted)
    assert (found.key_id, found.fault, found.path) == (own.key_id, "", signed.path)
    assert verify_checkpoint(made, signed.path, trusted) == own.key_id
    (entry,) = [each for each in yard.journal.read() if each.kind == "model.signed"]
    assert entry.data == {
        "name": "net", "version": 1, "digest": stored.digest, "key_id": own.key_id, "actor": "ann",
    }  # fmt: skip


def test_others_verify_it_with_the_library_alone(signed, made, own, tmp_path):
    from model_signing import hashing
    from model_signing.verifying import Config

    (tmp_path / "public.pem").write_text(own.public_pem)
    everything = hashing.Config().set_ignored_paths(paths=(), ignore_git_paths=False)
    config = Config().set_hashing_config(everything)
    config.use_elliptic_key_verifier(public_key=tmp_path / "public.pem")
    config.verify(made, signed.path)
    (made / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"Hash mismatch for 'config\.json'"):
        config.verify(made, signed.path)


def change_a_byte(made):
    with (made / "model.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff")


def link_a_file(made):
    """The same bytes, but somewhere else: who can change them there changes the model."""
    (made / "model.safetensors").rename(made.parent / "elsewhere")
    (made / "model.safetensors").symlink_to(made.parent / "elsewhere")


def link_a_folder(made):
    (made / "tokenizer").rename(made.parent / "elsewhere")
    (made / "tokenizer").symlink_to(made.parent / "elsewhere")


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (change_a_byte, "Hash mismatch for 'model.safetensors'\\); get"),
        (lambda made: (made / "extra.py").write_text("import os"), "Extra files found.*extra.py"),
        (lambda made: (made / ".hidden").write_text("x"), "Extra files found.*hidden"),
        (lambda made: (made / ".git" / "hook").write_text("x"), "Extra files found.*git/hook"),
        (lambda made: (made / "config.json").unlink(), "Missing files.*config.json"),
        (lambda made: (made / "config.json").rename(made / "c.json"), "Extra files found.*c.json"),
        (link_a_file, "model.safetensors"),
        (link_a_folder, "tokenizer"),
        (lambda made: (made / "dangling").symlink_to("nowhere"), "dangling"),
        (lambda made: os.mkfifo(made / "pipe"), "pipe"),
    ],
)
def test_a_checkpoint_that_was_tampered_with_is_refused(signed, made, trusted, tamper, words):
    tamper(made)
    with pytest.raises(SignatureError, match=f"is not what was signed.*{words}"):
        verify_checkpoint(made, signed.path, trusted)


def test_a_link_to_the_checkpoint_is_refused_too(signed, made, trusted, tmp_path):
    (tmp_path / "link").symlink_to(made)
    with pytest.raises(SignatureError, match="is not what was signed"):
        verify_checkpoint(tmp_path / "link", signed.path, trusted)


def payload_of(path):
    return json.loads(base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"]))


def forge(path, key, payload):
    """Put another payload into a bundle and sign it, as who has the key can."""
    bundle = json.loads(path.read_text())
    envelope = sealed(json.dumps(payload).encode(), PAYLOAD_TYPE, key)
    bundle["dsseEnvelope"] |= {"payload": envelope["payload"]}
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = envelope["signatures"][0]["sig"]
    path.write_text(json.dumps(bundle))


def root_digest(resources):
    """As the library computes it: over all digests in their order."""
    return hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()


def test_a_forged_bundle_is_read_at_all(signed, made, key, trusted, own):
    """The control of the next test: what `forge` writes holds where the payload is the true one."""
    forge(signed.path, key, payload_of(signed.path))
    assert verify_checkpoint(made, signed.path, trusted) == own.key_id


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "tokenizer/../../outside"])
def test_a_signature_that_names_files_outside_is_refused_although_it_is_signed(
    signed, made, key, trusted, name
):
    (made.parent / "outside").write_text("{}")
    payload = payload_of(signed.path)
    resources = payload["predicate"]["resources"]
    config = next(each for each in resources if each["name"] == "config.json")
    resources.append({**config, "name": name})
    payload["subject"][0]["digest"]["sha256"] = root_digest(resources)
    forge(signed.path, key, payload)
    with pytest.raises(SignatureError, match=f"Missing files.*{re.escape(name)}"):
        verify_checkpoint(made, signed.path, trusted)


def test_a_signature_that_leaves_files_out_is_refused_although_it_is_signed(signed, made, key, trusted):
    """As its signer may have meant it; but then anybody can put code there."""
    payload = payload_of(signed.path)
    payload["predicate"]["serialization"]["ignore_paths"] = ["modeling.py"]
    forge(signed.path, key, payload)
    (made / "modeling.py").write_text("import os")
    with pytest.raises(SignatureError, match=r"leaves out modeling\.py"):
        verify_checkpoint(made, signed.path, trusted)


def test_a_statement_about_a_comparison_is_no_signature_of_a_model(signed, made, key, trusted, certificate):
    """The same key signs both, in the same envelope; neither passes for the other."""
    forge(signed.path, key, statement_of(certificate("net", "old")))
    with pytest.raises(SignatureError, match="is not what was signed"):
        verify_checkpoint(made, signed.path, trusted)


def edit(path, change):
    bundle = json.loads(path.read_text())
    change(bundle)
    path.write_text(json.dumps(bundle))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b["dsseEnvelope"].update(payload=base64.b64encode(b"{}").decode()), "was changed"),
        (lambda b: b["dsseEnvelope"]["signatures"][0].update(sig="AAAA"), "was changed"),
        (lambda b: b["dsseEnvelope"].update(signatures=[]), "is not what was signed"),
        (lambda b: b.pop("dsseEnvelope"), "is not what was signed"),
        (lambda b: b.update(mediaType="text/plain"), "is not what was signed"),
        (lambda b: b["verificationMaterial"]["publicKey"].update(hint="0" * 64), "none of the 1 trusted"),
        (lambda b: b["verificationMaterial"]["publicKey"].pop("hint"), "is no signature of a model"),
        (lambda b: b.clear(), "is no signature of a model by a key"),
    ],
)
def test_a_bundle_that_was_changed_is_refused(signed, made, trusted, change, words):
    edit(signed.path, change)
    with pytest.raises(SignatureError, match=words):
        verify_checkpoint(made, signed.path, trusted)


def test_what_is_no_json_or_is_not_there_is_no_signature(made, trusted, tmp_path):
    (tmp_path / "x.sig").write_text("x")
    (tmp_path / "z.sig").write_text("[]")
    for name in ("x.sig", "y.sig", "z.sig"):
        with pytest.raises(SignatureError, match=rf"{name[0]}\.sig: is no signature of a model"):
            verify_checkpoint(made, tmp_path / name, trusted)


def test_several_may_sign_and_only_trusted_keys_count(yard, stored, signed, person, tmp_path):
    person("bob")
    person("eve", trusted=False)
    for name in ("bob", "eve"):
        sign_model(yard, stored, tmp_path / "people" / f"{name}.key", actor=name)
    trusted = trusted_keys(yard.keys_dir / TRUSTED)
    found = verify_model(yard, stored, trusted)
    assert {each.key_id for each in found if not each.fault} == set(trusted) and len(trusted) == 2
    (other,) = [each for each in found if each.fault]
    assert other.key_id == "" and "none of the 2 trusted keys" in other.fault


def test_signing_again_makes_the_signature_anew(yard, stored, signed, key, trusted, own):
    signed.path.write_text("{}")
    (broken,) = verify_model(yard, stored, trusted)
    assert broken.fault and not broken.key_id
    sign_model(yard, stored, key, actor="ann")
    (found,) = verify_model(yard, stored, trusted)
    assert (found.key_id, found.fault) == (own.key_id, "")


def test_a_model_that_is_not_stored_cannot_be_signed(yard, registry, key):
    with pytest.raises(RegistryError, match="a@1: only a checkpoint in the yard's content store can be sig"):
        sign_model(yard, registry.version("a"), key, actor="ann")


def test_a_checkpoint_that_was_damaged_in_the_store_is_neither_signed_nor_verified(
    yard, stored, signed, key, trusted
):
    content = ArtifactStore(yard.artifacts_dir).path(stored.digest)
    (content / "extra").write_text("x")
    with pytest.raises(RegistryError, match="was changed on disk"):
        sign_model(yard, stored, key, actor="ann")
    with pytest.raises(RegistryError, match="was changed on disk"):
        verify_model(yard, stored, trusted)


def test_a_link_in_the_store_is_refused_although_its_digest_is_right(yard, stored, signed, key, trusted):
    """Digests of ours follow links; the signature does not."""
    content = ArtifactStore(yard.artifacts_dir).path(stored.digest, verify=True)
    link_a_file(content)
    ArtifactStore(yard.artifacts_dir).path(stored.digest, verify=True)
    (found,) = verify_model(yard, stored, trusted)
    assert "is not what was signed" in found.fault and found.key_id
    with pytest.raises(SignatureError, match=r"cannot be signed \(.*model\.safetensors.*; put the files"):
        sign_model(yard, stored, key, actor="ann")


def test_a_digest_that_would_lead_out_of_the_yard_is_refused(yard, stored, key, trusted):
    away = replace(stored, digest="sha256:../../../../etc")
    for attempt in (
        lambda: sign_model(yard, away, key, actor="ann"),
        lambda: verify_model(yard, away, trusted),
    ):
        with pytest.raises(RegistryError, match="is no digest; the registry was changed"):
            attempt()
