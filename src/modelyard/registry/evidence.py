"""The evidence of a move: a certificate, copied into the yard and believed only after it was recomputed.

What is verified is the copy, so nobody can change it between the look and the use; it stays as long as the
yard does, and a rollback verifies it again. The recomputation is the independent verifier's.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import EvidenceError, SignatureError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json
from modelyard.core.signing import TRUSTED, trusted_keys, verify_record
from modelyard.runs.yard import Yard
from modelyard.verify.certificate import CertificateVerdict, verify_certificate

FOLDER = "evidence"
REPORT = "paired_eval_report.json"
SCHEMA = "modelyard.paired_eval_report/1"
_PACK = "pack.jsonl"
#: Ways of scoring a run that compare no models; see the run's iteration evidence.
_NO_COMPARISON = ("dry_run_fixture_scores", "pending_live_paired_eval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A certificate that was recomputed and found right, by a signer that counts."""

    # Of the report, and where it lies: relative to the yard where it is kept there.
    digest: str
    path: str
    id: str
    candidate_digest: str
    baseline_digest: str
    # Of its signer.
    key_id: str
    # Of what was signed: the same however the file is laid out, and whichever signature it bears.
    body: str
    # As it was declared.
    design: Mapping[str, Any]
    # Of the snapshot of its pack, which lies beside the report and was read anew.
    pack: str


def trusted(yard: Yard) -> dict[str, str]:
    """The public keys that count in a yard, by key id; raises `SignatureError`."""
    return trusted_keys(yard.keys_dir / TRUSTED)


def check_evidence(yard: Yard, report: Path, *, copy_of: Path | None = None) -> Evidence:
    """Recompute a certificate where it lies.

    Args:
        yard: Whose trusted keys count.
        report: The report; its files lie beside it.
        copy_of: What errors name instead.

    Raises:
        EvidenceError: With every reason why it is no evidence that a candidate is good enough.
    """
    record, keys = _read(report), trusted(yard)
    verdict = verify_certificate(report, keys)
    faults = _faults(record, verdict) or _distrust(record, keys)
    if faults:
        raise EvidenceError(
            f"{copy_of or report}: is no evidence for a promotion: {'; '.join(faults)}; make a new one with "
            "`modelyard certify`"
        )
    place = report.absolute()
    inside = place.is_relative_to(yard.root)
    return Evidence(
        digest=verdict.report_digest,
        path=place.relative_to(yard.root).as_posix() if inside else str(place),
        id=str(record.get("id", "")),
        candidate_digest=verdict.candidate_digest,
        baseline_digest=verdict.baseline_digest,
        key_id=verdict.key_id,
        body=_body(record),
        design=record["design"],
        pack=record["prompt_pack"]["snapshot_digest"],
    )


def kept_body(yard: Yard, path: str) -> str:
    """`Evidence.body` of a certificate that a yard has; empty where it does not have it (any more)."""
    try:
        return _body(_read(yard.root / path))
    except EvidenceError:
        return ""


def keep_evidence(yard: Yard, report: Path) -> Evidence:
    """Copy a certificate into the yard under its digest, and recompute the copy.

    Raises:
        EvidenceError: It cannot be read, or is no evidence.
    """
    record = _read(report)
    root = yard.root / FOLDER
    temporary = root / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.mkdir(parents=True)
        shutil.copyfile(report, temporary / REPORT)
        for name in _beside(record, report):
            shutil.copyfile(report.with_name(name), temporary / name)
        found = check_evidence(yard, temporary / REPORT, copy_of=report)
        kept = root / found.digest.removeprefix("sha256:")
        failpoint("registry.after_evidence")
        if kept.exists():
            return check_evidence(yard, kept / REPORT)
        temporary.replace(kept)
        return replace(found, path=(kept / REPORT).relative_to(yard.root).as_posix())
    except OSError as error:
        raise EvidenceError(
            f"{report}: cannot be kept in {root} ({error}); free the disk or mend the path"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(report: Path) -> Mapping[str, Any]:
    try:
        record = read_json(report)
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or error
        raise EvidenceError(f"{report}: is not a certificate's report ({said}); name another") from error
    if not isinstance(record, Mapping) or record.get("schema") != SCHEMA:
        raise EvidenceError(f"{report}: does not have the schema {SCHEMA}; name a certificate's report")
    return record


def _body(record: Mapping[str, Any]) -> str:
    return digest_json({name: part for name, part in record.items() if name != "signature"})


def _beside(record: Mapping[str, Any], report: Path) -> list[str]:
    """The files beside a report that belong to it."""
    judge = record.get("judge")
    parts = [record, *([judge] if isinstance(judge, Mapping) else [])]
    named = [part["raw_outputs"] for part in parts if "raw_outputs" in part]
    for name in named:
        if not isinstance(name, str) or Path(name).name != name or "\0" in name or name in ("", REPORT):
            raise EvidenceError(
                f"{report}: raw_outputs is {name!r} where a file beside the report is required"
            )
    return [*named, *([_PACK] if report.with_name(_PACK).exists() else [])]


def _faults(record: Mapping[str, Any], verdict: CertificateVerdict) -> list[str]:
    """Why a report proves nothing; empty where it does."""
    faults = [str(fault) for fault in verdict.faults]
    if not faults and verdict.verdict != "pass":
        faults.append(f"its verdict is {verdict.verdict!r} where 'pass' is required")
    scoring = record.get("scoring")
    mode = scoring.get("mode") if isinstance(scoring, Mapping) else None
    if record.get("dry_run") or mode in _NO_COMPARISON:
        faults.append(f"it comes from a rehearsal ({mode or 'dry_run'}), which compares no models")
    if verdict.candidate_digest == verdict.baseline_digest:
        faults.append("its candidate and its baseline are the same model")
    return faults


def _distrust(record: Mapping[str, Any], keys: Mapping[str, str]) -> list[str]:
    """What our own reading of the signature says, beside the verifier's."""
    try:
        verify_record(record, keys)
    except SignatureError as error:
        return [str(error)]
    return []
