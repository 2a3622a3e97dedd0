"""Certificates as in-toto statements: the form, the signature, the round trip, and what is refused.

Where the library of the specification's authors is installed it reads every envelope too.
"""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.digests import digest_bytes
from modelyard.core.errors import EvidenceError, SignatureError
from modelyard.core.signing import TRUSTED, open_signer, trusted_keys
from modelyard.evidence.dsse import encoding, opened, sealed
from modelyard.evidence.in_toto import (
    PAYLOAD_TYPE,
    PREDICATE,
    read_statement,
    statement_faults,
    statement_of,
    write_statement,
)
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest


@pytest.fixture
def key(tmp_path):
    """A private key's file; its public key is the trusted one of the folder beside it."""
    open_signer(tmp_path / "keys" / "yard.pem", create=True)
    return tmp_path / "keys" / "yard.pem"


@pytest.fixture
def trusted(key):
    return trusted_keys(key.parent / TRUSTED)


@pytest.fixture
def report(tmp_path, key):
    signer = open_signer(key, create=False)
    return make_certificate(tmp_path / "made", MadeUp(candidate="new", baseline="old"), signer)


@pytest.fixture
def written(tmp_path, key, report):
    write_statement(report, tmp_path / "new.intoto.jsonl", key)
    return tmp_path / "new.intoto.jsonl"


def resealed(path, key, change, payload_type=PAYLOAD_TYPE):
    """A statement that its signer changed and signed again."""
    statement = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    change(statement)
    path.write_text(json.dumps(sealed(json.dumps(statement).encode(), payload_type, key)))


def test_a_statement_is_about_the_candidate_and_has_the_judgement(report):
    statement = statement_of(report)
    record = json.loads(report.read_text())
    assert list(statement) == ["_type", "subject", "predicateType", "predicate"]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    digest = model_digest("new").removeprefix("sha256:")
    assert statement["subject"] == [{"name": "new", "digest": {"sha256": digest}}]
    told = statement["predicate"]
    assert (statement["predicateType"], told["verdict"]) == (PREDICATE, "pass")
    for field in ("reasons", "design", "counts", "effect", "p_value", "critical"):
        assert told[field] == record[field]
    assert told["report"]["digest"] == {"sha256": digest_bytes(report.read_bytes())[7:]}
    assert told["report"]["key_id"] == record["signature"]["key_id"]
    assert told["baseline"]["digest"] == {"sha256": model_digest("old")[7:]}
    assert told["raw_outputs_digest"] == {"sha256": record["raw_outputs_digest"][7:]}


def test_what_was_written_is_read_again_and_agrees_with_the_certificate(written, report, key, trusted):
    found = read_statement(written, trusted)
    assert found.statement == statement_of(report)
    assert (found.key_id, found.verdict) == (open_signer(key, create=False).key_id, "pass")
    assert found.subject == ("new", model_digest("new"))
    assert statement_faults(found, report) == []
    assert written.read_text().count("\n") == 1


def test_the_encoding_is_that_of_the_specification():
    """The example of protocol.md."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert encoding("http://example.com/HelloWorld", b"hello world") == expected
    assert encoding("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


@given(st.tuples(st.text(), st.binary()), st.tuples(st.text(), st.binary()))
def test_no_two_envelopes_have_one_encoding(one, other):
    assert (encoding(*one) == encoding(*other)) == (one == other)


def test_the_library_of_its_authors_reads_the_envelope(written, report, key):
    dsse = pytest.importorskip("securesystemslib.dsse", reason="peer: securesystemslib is not installed")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    signer = open_signer(key, create=False)
    peer = SSlibKey.from_crypto(load_pem_public_key(signer.public_pem.encode()), signer.key_id)
    envelope = dsse.Envelope.from_dict(json.loads(written.read_text()))
    assert list(envelope.verify([peer], 1)) == [signer.key_id]
    assert json.loads(envelope.payload) == statement_of(report)
    envelope.payload += b" "
    with pytest.raises(VerificationError):
        envelope.verify([peer], 1)


def test_we_read_what_the_library_of_its_authors_signed(trusted, key):
    dsse = pytest.importorskip("securesystemslib.dsse", reason="peer: securesystemslib is not installed")
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner, SSlibKey

    private = load_pem_private_key(key.read_bytes(), password=None)
    (key_id,) = trusted
    signer = CryptoSigner(private, SSlibKey.from_crypto(private.public_key(), key_id))
    envelope = dsse.Envelope(b"hello", "text/plain", {})
    envelope.sign(signer)
    found = opened(envelope.to_dict(), trusted)
    assert (found.payload, found.payload_type, found.key_id) == (b"hello", "text/plain", key_id)


def test_the_binding_of_its_authors_takes_the_statement(report):
    module = pytest.importorskip(
        "in_toto_attestation.v1.statement", reason="peer: in-toto-attestation is not installed"
    )
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2

    parsed = json_format.ParseDict(statement_of(report), statement_pb2.Statement())
    module.Statement.copy_from_pb(parsed).validate()
    assert parsed.subject[0].digest["sha256"] == model_digest("new")[7:]


def _flip(envelope, field):
    raw = bytearray(base64.b64decode(envelope[field]))
    raw[len(raw) // 2] ^= 1
    envelope[field] = base64.b64encode(bytes(raw)).decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: _flip(e, "payload"), "does not cover this envelope"),
        (lambda e: _flip(e["signatures"][0], "sig"), "does not cover this envelope"),
        (lambda e: e.update(payloadType="application/json"), "does not cover this envelope"),
        (lambda e: e.update(payload="*"), "payload is not base64"),
        (lambda e: e.update(payload=7), "its payload is no text"),
        (lambda e: e["signatures"][0].update(sig=None), "its sig is no text"),
        (lambda e: e["signatures"][0].update(keyid="sha256:0"), "signed by sha256:0, and none of the 1 trus"),
        (lambda e: e["signatures"][0].pop("keyid"), "signed by an unnamed key"),
        (lambda e: e.update(signatures=[]), "signed by nobody"),
        (lambda e: e.update(signatures=["x"]), "each signature is an object"),
        (lambda e: e.pop("payloadType"), "no DSSE envelope"),
    ],
)
def test_an_envelope_that_was_changed_is_not_opened(written, trusted, change, words):
    envelope = json.loads(written.read_text())
    change(envelope)
    written.write_text(json.dumps(envelope))
    with pytest.raises(SignatureError, match=words):
        read_statement(written, trusted)


def test_one_signature_that_counts_is_enough_and_base64_of_urls_is_read(written, trusted, key, tmp_path):
    envelope = json.loads(written.read_text())
    open_signer(tmp_path / "other.key", create=True)
    other = sealed(base64.b64decode(envelope["payload"]), PAYLOAD_TYPE, tmp_path / "other.key")
    envelope["signatures"] = other["signatures"] + envelope["signatures"]
    signature = envelope["signatures"][1]
    signature["sig"] = signature["sig"].replace("+", "-").replace("/", "_")
    written.write_text(json.dumps(envelope))
    assert read_statement(written, trusted).key_id == open_signer(key, create=False).key_id
    with pytest.raises(SignatureError, match="none of the 0 trusted keys"):
        read_statement(written, {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"), "its _type is"),
        (lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"), "its predicateType is"),
        (lambda s: s.update(subject=[]), "does not have one subject"),
        (lambda s: s.update(subject=s["subject"] * 2), "does not have one subject"),
        (lambda s: s["subject"][0].update(digest={"sha256": "x"}), "does not have one subject"),
        (lambda s: s.pop("predicate"), "and a predicate"),
    ],
)
def test_a_signed_statement_about_something_else_is_refused(written, key, trusted, change, words):
    resealed(written, key, change)
    with pytest.raises(EvidenceError, match=words):
        read_statement(written, trusted)


def test_a_signed_payload_of_another_type_is_refused(written, key, trusted):
    resealed(written, key, lambda s: None, payload_type="application/json")
    with pytest.raises(EvidenceError, match="holds 'application/json'"):
        read_statement(written, trusted)


def test_a_statement_that_says_more_than_its_certificate_is_found(written, report, key, trusted):
    def better(statement):
        statement["predicate"].update(p_value=1e-9, note="trust me")
        statement["subject"][0]["digest"]["sha256"] = "0" * 64

    resealed(written, key, better)
    faults = statement_faults(read_statement(written, trusted), report)
    assert [fault.partition(":")[0] for fault in faults] == ["subject", "note", "p_value"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "holds list where a JSON object"),
        ("{", "holds no JSON"),
        ('{"schema": "other"}', "does not have the schema"),
        ('{"schema": "modelyard.paired_eval_report/1"}', "is not whole"),
    ],
)
def test_what_is_no_report_has_no_statement(tmp_path, content, words):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(EvidenceError, match=words):
        statement_of(tmp_path / "report.json")


def test_a_digest_of_another_kind_is_refused(report):
    record = json.loads(report.read_text())
    record["candidate"]["digest"] = "md5:1"
    report.write_text(json.dumps(record))
    with pytest.raises(EvidenceError, match="'md5:1' is no sha256: digest"):
        statement_of(report)


def test_files_that_cannot_be_used_are_named(tmp_path, report, key):
    with pytest.raises(EvidenceError, match=r"nothing\.json: cannot be read"):
        statement_of(tmp_path / "nothing.json")
    with pytest.raises(EvidenceError, match="cannot be written"):
        write_statement(report, tmp_path, key)
    key.chmod(0o644)
    with pytest.raises(SignatureError, match="chmod 600"):
        write_statement(report, tmp_path / "out", key)
