"""A certificate as an in-toto statement, which policy engines and supply-chain tools read.

The statement (in-toto Attestation Framework, Statement version 1: github.com/in-toto/attestation,
spec/v1/statement.md) has the candidate as its subject, by the digest that the registry serves, and as its
predicate the judgement with the digests of everything that it rests on. It lies in a DSSE envelope signed
by the yard's key. It does not hold the answers, so the verdict cannot be recomputed from it: whoever has the
certificate too holds one against the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.digests import canonical_json, digest_bytes
from modelyard.core.errors import EvidenceError
from modelyard.core.files import write_whole
from modelyard.evidence.answers import BASELINE, CANDIDATE
from modelyard.evidence.dsse import opened, sealed
from modelyard.evidence.report import SCHEMA

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: Names the form of the predicate; its last part is raised by one when a field changes its meaning.
PREDICATE = "urn:modelyard:paired_eval_report:1"
#: Fields of a report that the predicate has as they are.
_JUDGEMENT = (
    "verdict", "reasons", "design", "items_asked", "counts", "effect", "p_value", "mcnemar_p", "e_value",
    "critical", "pairwise_losses", "aggregate", "power", "secondary", "run_id",
)  # fmt: skip
_PACK = ("name", "split", "n", "n_critical", "clusters")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """A statement that a trusted key signed."""

    statement: Mapping[str, Any]
    key_id: str

    @property
    def verdict(self) -> str:
        """What the statement says of its subject; empty where it says nothing."""
        return str(self.statement["predicate"].get("verdict", ""))

    @property
    def subject(self) -> tuple[str, str]:
        """Name and digest of the model that it is about."""
        (subject,) = self.statement["subject"]
        return str(subject.get("name", "")), f"sha256:{subject['digest']['sha256']}"


def write_statement(report: Path, out: Path, key: Path) -> dict[str, Any]:
    """Write a certificate's statement, signed, in one line, so that files of several can be joined.

    The certificate is not verified here; see `verify.certificate`.

    Returns:
        The statement.

    Raises:
        EvidenceError: The report is no certificate's, or `out` cannot be written.
        SignatureError: The key cannot be used.
    """
    statement = statement_of(report)
    envelope = sealed(canonical_json(statement), PAYLOAD_TYPE, key)
    try:
        write_whole(out, canonical_json(envelope) + b"\n")
    except OSError as error:
        raise EvidenceError(f"{out}: cannot be written ({error.strerror}); name another file") from error
    return statement


def read_statement(path: Path, trusted: Mapping[str, str]) -> Attested:
    """The statement in a file, if a trusted key signed it.

    Raises:
        EvidenceError: The file holds no statement about a paired comparison.
        SignatureError: No trusted key signed it, or it was changed afterwards.
    """
    found = opened(_object(_content(path), path), trusted)
    if found.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(f"{path}: holds {found.payload_type!r} where {PAYLOAD_TYPE} is understood")
    statement = _object(found.payload, path)
    for field, due in (("_type", STATEMENT), ("predicateType", PREDICATE)):
        if statement.get(field) != due:
            raise EvidenceError(f"{path}: its {field} is {statement.get(field)!r} where {due} is understood")
    if not _has_form(statement):
        raise EvidenceError(f"{path}: does not have one subject with a sha256 and a predicate; ask its maker")
    return Attested(statement=statement, key_id=found.key_id)


def statement_faults(attested: Attested, report: Path) -> list[str]:
    """Where a statement says something else than the certificate that is beside the reader.

    Raises:
        EvidenceError: The report is no certificate's.
    """
    due = statement_of(report)
    told = attested.statement
    faults = [] if told["subject"] == due["subject"] else [_fault("subject", told["subject"], due["subject"])]
    stated, found = told["predicate"], due["predicate"]
    return faults + [
        _fault(name, stated.get(name), found.get(name))
        for name in sorted({*stated, *found})
        if stated.get(name) != found.get(name)
    ]


def statement_of(report: Path) -> dict[str, Any]:
    """The statement of a certificate, not signed.

    Raises:
        EvidenceError: The report is no certificate's.
    """
    content = _content(report)
    record = _object(content, report)
    if record.get("schema") != SCHEMA:
        raise EvidenceError(f"{report}: does not have the schema {SCHEMA}; name a certificate's report")
    try:
        return {
            "_type": STATEMENT,
            "subject": [_model(record, CANDIDATE)],
            "predicateType": PREDICATE,
            "predicate": {
                **{field: record[field] for field in _JUDGEMENT if field in record},
                **_rests_on(record),
                "report": {
                    "id": record["id"],
                    "schema": record["schema"],
                    "created_at": record["created_at"],
                    "digest": _digests(digest_bytes(content)),
                    "key_id": record["signature"]["key_id"],
                },
            },
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EvidenceError(
            f"{report}: is not whole ({type(error).__name__}: {error}); name a certificate's report"
        ) from error


def _rests_on(record: Mapping[str, Any]) -> dict[str, Any]:
    """The baseline, the pack, the answers and the code, by digest."""
    pack, judge = record["prompt_pack"], record.get("judge")
    told = {
        BASELINE: _model(record, BASELINE),
        "prompt_pack": {
            **{field: pack[field] for field in _PACK},
            "digest": _digests(pack["digest"]),
            "snapshot_digest": _digests(pack["snapshot_digest"]),
        },
        "raw_outputs_digest": _digests(record["raw_outputs_digest"]),
        "code_digest": _digests(record["code_digest"]),
    }
    if judge is not None:
        told["verdicts_digest"] = _digests(judge["raw_outputs_digest"])
    return told


def _model(record: Mapping[str, Any], side: str) -> dict[str, Any]:
    return {"name": record[side]["name"], "digest": _digests(record[side]["digest"])}


def _digests(digest: str) -> dict[str, str]:
    """A digest as in-toto has it: by the name of its algorithm."""
    if not _SHA256.fullmatch(digest):
        raise ValueError(f"{digest!r} is no sha256: digest")  # told as an error of ours above
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def _has_form(statement: Mapping[str, Any]) -> bool:
    subjects, predicate = statement.get("subject"), statement.get("predicate")
    if not (isinstance(subjects, list) and len(subjects) == 1 and isinstance(predicate, dict)):
        return False
    (subject,) = subjects
    digest = subject.get("digest") if isinstance(subject, dict) else None
    return isinstance(digest, dict) and bool(_SHA256.fullmatch(f"sha256:{digest.get('sha256')}"))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read ({error.strerror}); name another file") from error


def _object(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{path}: holds no JSON where an object is needed ({error})") from error
    if not isinstance(value, dict):
        raise EvidenceError(f"{path}: holds {type(value).__name__} where a JSON object is needed")
    return value


def _fault(field: str, stated: object, found: object) -> str:
    return f"{field}: the statement says {stated!r}, the certificate {found!r}"
