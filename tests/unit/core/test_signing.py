"""Signed records: the trusted keys decide, nothing that the record says of itself does."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.digests import canonical_json, digest_bytes
from modelyard.core.errors import SignatureError
from modelyard.core.signing import (
    ALGORITHM,
    Signer,
    covers,
    open_signer,
    public_pem,
    trusted_keys,
    verify_record,
)

RECORD = {"schema": "test/1", "number": 1.5, "list": [1, None, "é"], "deep": {"b": True, "a": ""}}


@pytest.fixture(scope="module")
def signer():
    return Signer(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def other():
    return Signer(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture(scope="module")
def trusted(signer):
    return {signer.key_id: signer.public_pem}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def der(pem):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return serialization.load_pem_public_key(pem.encode()).public_bytes(serialization.Encoding.DER, form)


def test_a_signed_record_names_its_signer_and_is_believed_by_who_trusts_them(signer, trusted):
    signed = signer.sign(RECORD)
    assert {k: v for k, v in signed.items() if k != "signature"} == RECORD
    assert signed["signature"]["algorithm"] == ALGORITHM == "ecdsa-p256-sha256"
    assert signed["signature"]["key_id"] == signer.key_id == digest_bytes(der(signer.public_pem))
    assert verify_record(json.loads(json.dumps(signed)), trusted) == signer.key_id


def test_another_program_can_check_it(signer):
    """The signature is plain ECDSA over the canonical bytes of the rest."""
    signature = signer.sign(RECORD)["signature"]
    key = serialization.load_pem_public_key(signature["public_key"].encode())
    key.verify(base64.b64decode(signature["value"]), canonical_json(RECORD), ec.ECDSA(hashes.SHA256()))


@pytest.fixture(scope="module")
def stored(signer):
    """One signed record as it is stored; the length of a signature is another each time."""
    return json.dumps(signer.sign(RECORD), sort_keys=True).encode()


@given(st.data())
def test_no_changed_byte_is_believed(signer, trusted, stored, data):
    """Whatever byte of the stored text is changed: refused, or it says the same in other characters."""
    position = data.draw(st.integers(0, len(stored) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != stored[position]))
    try:
        changed = json.loads(stored[:position] + bytes([byte]) + stored[position + 1 :])
        verify_record(changed, trusted)
    except (SignatureError, ValueError, AttributeError):
        return
    assert changed | {"signature": None} == RECORD | {"signature": None}
    assert der(changed["signature"]["public_key"]) == der(signer.public_pem)


@pytest.mark.parametrize(
    "change",
    [{"number": 1.6}, {"list": [1, None]}, {"new": None}, {"deep": {"b": True, "a": " "}}, {"number": "1.5"}],
)
def test_another_record_under_the_same_signature_is_refused(signer, trusted, change):
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        verify_record({**signer.sign(RECORD), **change}, trusted)


def test_bytes_are_covered_by_their_signature_alone(signer, other):
    value = signer.sign_bytes(b"one")
    assert covers(signer.public_pem, value, b"one")
    assert not covers(signer.public_pem, value, b"two")
    assert not covers(other.public_pem, value, b"one")
    assert not covers(signer.public_pem, b"junk", b"one")
    with pytest.raises(SignatureError, match="is not a public key"):
        covers("junk", value, b"one")


def test_a_removed_field_is_refused(signer, trusted):
    signed = signer.sign(RECORD)
    del signed["number"]
    with pytest.raises(SignatureError, match="was changed after it was signed"):
        verify_record(signed, trusted)


def test_a_good_signature_of_somebody_else_is_refused(other, trusted):
    with pytest.raises(SignatureError, match="is none of the 1 trusted keys"):
        verify_record(other.sign(RECORD), trusted)
    with pytest.raises(SignatureError, match="is none of the 0 trusted keys"):
        verify_record(other.sign(RECORD), {})


def test_a_key_that_the_record_brings_along_does_not_help(signer, other, trusted):
    """A forger signs with an own key, and writes the trusted key's name or key beside it."""
    forged = other.sign(RECORD)
    named = {**forged, "signature": {**forged["signature"], "key_id": signer.key_id}}
    with pytest.raises(SignatureError, match="public_key is not the key"):
        verify_record(named, trusted)
    both = {**named, "signature": {**named["signature"], "public_key": signer.public_pem}}
    with pytest.raises(SignatureError, match="does not cover this record"):
        verify_record(both, trusted)


def test_a_public_key_replaced_beside_a_good_signature_is_refused_too(signer, other, trusted):
    signed = signer.sign(RECORD)
    changed = {**signed, "signature": {**signed["signature"], "public_key": other.public_pem}}
    with pytest.raises(SignatureError, match="public_key is not the key"):
        verify_record(changed, trusted)


def test_a_trusted_key_under_another_name_is_refused(signer, other):
    with pytest.raises(SignatureError, match="is another one"):
        verify_record(signer.sign(RECORD), {signer.key_id: other.public_pem})


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (None, "is not signed"),
        ("text", "must have the texts algorithm, key_id, public_key, value"),
        ({}, "must have the texts"),
        ({"algorithm": ALGORITHM, "key_id": 1, "public_key": "", "value": ""}, "must have the texts"),
        (
            {"algorithm": ALGORITHM, "key_id": "", "public_key": "", "value": "", "x": ""},
            "must have the texts",
        ),
        ({"algorithm": "none", "key_id": "", "public_key": "", "value": ""}, "'none' where ecdsa-p256"),
        ({"algorithm": ALGORITHM, "key_id": "", "public_key": "", "value": "?"}, "is not base64"),
        ({"algorithm": ALGORITHM, "key_id": "", "public_key": "", "value": "é"}, "is not base64"),
    ],
)
def test_what_is_no_signature_is_told(trusted, signature, message):
    with pytest.raises(SignatureError, match=message):
        verify_record({**RECORD, "signature": signature}, trusted)


def test_a_record_is_signed_once(signer):
    with pytest.raises(SignatureError, match="signed already"):
        signer.sign(signer.sign(RECORD))


@pytest.mark.parametrize("value", [float("nan"), 2**60, {1: 2}, object()])
def test_what_json_cannot_hold_is_not_signed(signer, value):
    with pytest.raises(SignatureError, match="no canonical form"):
        signer.sign({"value": value})


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "approver.pem"
    first = open_signer(path, create=True)
    content = path.read_bytes()
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert open_signer(path, create=True).key_id == open_signer(path, create=False).key_id == first.key_id
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["approver.pem"]


def test_a_yards_own_key_is_trusted_until_it_is_taken_out(tmp_path):
    path = tmp_path / "keys" / "yard.pem"
    own = open_signer(path, create=True)
    folder = path.parent / "trusted"
    assert trusted_keys(folder) == {own.key_id: own.public_pem}
    assert mode(folder) == 0o700
    assert verify_record(own.sign(RECORD), trusted_keys(folder)) == own.key_id
    next(folder.iterdir()).unlink()
    open_signer(path, create=True)
    assert trusted_keys(folder) == {}


def test_all_who_make_the_same_key_at_once_get_one(tmp_path):
    path = tmp_path / "keys" / "yard.pem"
    with ThreadPoolExecutor(8) as pool:
        ids = {s.key_id for s in pool.map(lambda _: open_signer(path, create=True), range(16))}
    assert len(ids) == 1
    assert set(trusted_keys(path.parent / "trusted")) == ids
    assert sorted(p.name for p in path.parent.iterdir()) == ["trusted", "yard.pem"]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o644, 0o660])
def test_a_key_that_others_can_use_is_refused(tmp_path, bits):
    path = tmp_path / "key.pem"
    open_signer(path, create=True)
    path.chmod(bits)
    for use in (lambda: open_signer(path, create=True), lambda: public_pem(path)):
        with pytest.raises(SignatureError, match=f"has mode {bits:04o}.*chmod 600"):
            use()
    path.chmod(0o400)
    assert open_signer(path, create=False).key_id


def private_pem(key, password=None):
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a private key in PEM form"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a private key"),
        (private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"), "without a password"),
        (private_pem(ec.generate_private_key(ec.SECP384R1())), "on the curve P-256"),
        (private_pem(ed25519.Ed25519PrivateKey.generate()), "on the curve P-256"),
    ],
)
def test_what_is_no_key_of_ours_is_told_with_its_file(tmp_path, content, message):
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SignatureError, match=f"{path}.*{message}"):
        open_signer(path, create=True)


def test_a_missing_key_is_told(tmp_path):
    with pytest.raises(SignatureError, match="there is no key here"):
        open_signer(tmp_path / "none.pem", create=False)
    with pytest.raises(SignatureError, match="cannot be read as a key"):
        public_pem(tmp_path / "none.pem")
    with pytest.raises(SignatureError, match="cannot be read as a key"):
        open_signer(tmp_path, create=False)


def test_the_public_key_of_either_file(tmp_path, signer):
    own = open_signer(tmp_path / "key.pem", create=True)
    (tmp_path / "public.pem").write_text(own.public_pem.replace("\n", "\r\n"))
    assert public_pem(tmp_path / "key.pem") == public_pem(tmp_path / "public.pem") == own.public_pem
    assert "PRIVATE" not in own.public_pem


def test_the_trusted_folder_holds_public_keys_only(tmp_path, signer, other):
    assert trusted_keys(tmp_path / "none") == {}
    (tmp_path / "a.pem").write_text(signer.public_pem)
    (tmp_path / "b.pem").write_text(other.public_pem)
    (tmp_path / "notes.txt").write_text("no key")
    assert trusted_keys(tmp_path) == {signer.key_id: signer.public_pem, other.key_id: other.public_pem}
    open_signer(tmp_path / "c.pem", create=True)
    with pytest.raises(SignatureError, match=r"c\.pem: holds a private key"):
        trusted_keys(tmp_path)
    (tmp_path / "c.pem").write_text("junk")
    with pytest.raises(SignatureError, match=r"c\.pem: is not a public key"):
        trusted_keys(tmp_path)


@pytest.mark.parametrize("place", [".", "a.pem"])
def test_a_trusted_set_that_anyone_can_change_is_refused(tmp_path, signer, place):
    (tmp_path / "a.pem").write_text(signer.public_pem)
    changed = tmp_path / place
    changed.chmod(mode(changed) | 0o002)
    with pytest.raises(SignatureError, match="anyone can change whom to believe"):
        trusted_keys(tmp_path)


def test_the_library_is_loaded_only_to_sign():
    code = "import sys, modelyard.core.signing; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_the_library_the_remedy_is_told(tmp_path):
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path; from modelyard.core.signing import open_signer, verify_record\n"
        "from modelyard.core.errors import SignatureError\n"
        "for use in (lambda: open_signer(Path(sys.argv[1]), create=True), lambda: verify_record({}, {})):\n"
        "    try: use()\n"
        "    except SignatureError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "key.pem")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "signing needs cryptography; pip install 'modelyard[prove]'\n" * 2
