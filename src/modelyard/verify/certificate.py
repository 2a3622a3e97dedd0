"""Recomputes a certificate from its raw answers: `python -m modelyard.verify.certificate REPORT`.

It needs the report and the files beside it, and nothing of ours: what is stated (signature, digests,
counts, effect and interval, p-values, e-values, critical failures, losses, verdict) is found anew with
code of its own, from the definitions in the documentation, and every difference is a fault that names the
field, the value stated and the value found. So are the secondary comparisons, by tag. Planning figures
(`power`) are taken as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.verify.design import design_faults
from modelyard.verify.dossier import SIDES, read_dossier
from modelyard.verify.estimates import method_fault
from modelyard.verify.judgement import Judgement, judge
from modelyard.verify.lines import NUMBER, close, file_digest, is_of
from modelyard.verify.looks import Look
from modelyard.verify.reasons import reason_faults
from modelyard.verify.secondary import secondary_faults
from modelyard.verify.signature import check_signature, read_record, trusted_in

SCHEMA = "modelyard.paired_eval_report/1"
_VERDICTS = ("pass", "fail", "inconclusive")
#: Fields of the report that are used here, with their types.
_FORM = {
    "prompt_pack": dict, "baseline": dict, "candidate": dict, "design": dict, "items_asked": int,
    "counts": dict, "effect": dict, "p_value": NUMBER, "mcnemar_p": NUMBER,
    "e_value": (*NUMBER, type(None)), "critical": dict, "pairwise_losses": list, "aggregate": dict,
    "looks": list, "verdict": str, "reasons": list, "raw_outputs": str, "raw_outputs_digest": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateVerdict:
    """What was found; the certificate holds when `faults` is empty."""

    # Each names the field, what is stated and what was found.
    faults: tuple[str, ...]
    # As recomputed from the answers; empty where they cannot be judged at all.
    verdict: str
    # As the report states them; empty where it does not.
    candidate_digest: str
    baseline_digest: str
    # Whose signature it bears; whether that key is to be believed is checked only against trusted ones.
    key_id: str
    # Of the bytes of the report's file.
    report_digest: str


def verify_certificate(report_path: Path, trusted: Mapping[str, str] | None = None) -> CertificateVerdict:
    """Recompute a certificate; reads only, and never raises for what it reads.

    Args:
        report_path: `paired_eval_report.json`, with the files that it names beside it.
        trusted: Public keys (PEM) by key id that may sign; without them any key may, and `key_id` says
            which one did.
    """
    try:
        content = report_path.read_bytes()
    except OSError as error:
        return _unreadable("", f"{report_path}: cannot be read ({error.strerror})")
    digest = file_digest(content)
    try:
        report = read_record(content)
    except (ValueError, RecursionError) as error:
        return _unreadable(digest, f"the report {error}")
    key_id, problem = check_signature(report, trusted)
    faults = [f"signature: {problem}"] if problem else []
    malformed = list(_malformed(report))
    verdict = ""
    if malformed:
        faults += malformed
    else:
        verdict, found = _recomputed(report_path.parent, report)
        faults += found
    return CertificateVerdict(
        faults=tuple(faults),
        verdict=verdict,
        candidate_digest=_digest(report, "candidate"),
        baseline_digest=_digest(report, "baseline"),
        key_id=key_id,
        report_digest=digest,
    )


def _recomputed(folder: Path, report: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The verdict that the answers give, empty where they give none, and every fault."""
    design = report["design"]
    faults = design_faults(design)
    if faults:
        return "", faults
    dossier, faults = read_dossier(folder, report, design)
    if dossier is None:
        return "", faults
    if not dossier.pairs:
        return "", ["answers: no item was asked"]
    problem = method_fault(dossier, design)
    if problem:
        return "", [f"design.method {design['method']!r} {problem}"]
    found = judge(dossier, design)
    for field, value in found.figures.items():
        faults += _differences(field, report[field], value)
    faults += _p_faults(report["p_value"], found.estimate.p)
    faults += _look_faults(report["looks"], found.looks)
    faults += secondary_faults(report.get("secondary", []), dossier, design)
    verdict = found.verdict(design, *_decisive(report, found))
    if report["verdict"] != verdict:
        faults.append(_fault("verdict", report["verdict"], verdict))
    return verdict, faults + reason_faults(report, found)


def _decisive(report: Mapping[str, Any], found: Judgement) -> tuple[float, float]:
    """P-value and upper bound, as stated where they are right, so that rounding decides nothing."""
    (least, most), high = found.estimate.p, found.estimate.high
    p = report["p_value"] if not _p_faults(report["p_value"], (least, most)) else most
    stated = report["effect"].get("ci")
    right = not _differences("", stated, [found.estimate.low, high])
    return float(p), float(stated[1]) if right else high


def _p_faults(stated: float, found: tuple[float, float]) -> list[str]:
    """Where draws of a bootstrap tie with what was observed, any p-value between the two is right."""
    least, most = found
    if least <= stated <= most or close(stated, least) or close(stated, most):
        return []
    return [_fault("p_value", stated, most)]


def _look_faults(stated: Sequence[Any], found: Sequence[Look]) -> list[str]:
    """Looks may be left out of a report, but not the last, and none may be made up."""
    form = {"items": int, "e_value": NUMBER, "e_against": NUMBER}
    if any(
        not isinstance(look, dict) or any(not is_of(look.get(name), kind) for name, kind in form.items())
        for look in stated
    ):
        return ["looks: one does not have items, e_value and e_against"]
    items = [look["items"] for look in stated]
    known = {look.items: look for look in found}
    faults = []
    if items != sorted(set(items)) or items[-1:] != [look.items for look in found[-1:]]:
        last = found[-1].items if found else "none"
        faults.append(_fault("looks", f"looks after {items[-3:]} items", f"a last one after {last}"))
    for look in stated:
        due = known.get(look["items"])
        if due is None:
            faults.append(f"looks: there is none after {look['items']} items")
        else:
            place = f"looks[items={look['items']}]"
            faults += _differences(f"{place}.e_value", look["e_value"], due.e_value)
            faults += _differences(f"{place}.e_against", look["e_against"], due.e_against)
    return faults


def _differences(place: str, stated: Any, found: Any) -> list[str]:
    """A fault for each value that is not as it was found."""
    if isinstance(found, dict):
        if not isinstance(stated, dict):
            return [_fault(place, stated, found)]
        return [
            fault for name, value in found.items()
            for fault in _differences(f"{place}.{name}", stated.get(name), value)
        ]  # fmt: skip
    if isinstance(found, list) and isinstance(stated, list) and len(stated) == len(found):
        return [
            fault for number, (one, other) in enumerate(zip(stated, found, strict=True))
            for fault in _differences(f"{place}[{number}]", one, other)
        ]  # fmt: skip
    if isinstance(found, float) and is_of(stated, NUMBER):
        return [] if close(stated, found) else [_fault(place, stated, found)]
    same = stated == found and isinstance(stated, bool) == isinstance(found, bool)
    return [] if same else [_fault(place, stated, found)]


def _fault(place: str, stated: object, found: object) -> str:
    return f"{place}: the report states {stated!r}, the answers give {found!r}"


def _malformed(report: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a report from being read at all."""
    if report.get("schema") != SCHEMA:
        yield f"schema: the report states {report.get('schema')!r} where {SCHEMA} is understood"
        return
    wrong = [name for name, kind in _FORM.items() if not is_of(report.get(name, ...), kind)]
    if wrong:
        yield f"the report has no such field, or a wrong one: {', '.join(wrong)}"
    elif report["verdict"] not in _VERDICTS:
        yield f"verdict: the report states {report['verdict']!r}, which is none of {', '.join(_VERDICTS)}"
    yield from (f"{side}: has no digest" for side in SIDES if not _digest(report, side))


def _digest(report: Mapping[str, Any], side: str) -> str:
    model = report.get(side)
    digest = model.get("digest") if isinstance(model, dict) else None
    return digest if isinstance(digest, str) else ""


def _unreadable(digest: str, fault: str) -> CertificateVerdict:
    return CertificateVerdict(
        faults=(fault,), verdict="", candidate_digest="", baseline_digest="", key_id="", report_digest=digest
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found; status 1 when the certificate does not hold."""
    parser = argparse.ArgumentParser(prog="python -m modelyard.verify.certificate", description=__doc__)
    parser.add_argument("report", type=Path, help="paired_eval_report.json, with its files beside it")
    parser.add_argument("--trusted", type=Path, help="a folder of the public keys that may sign")
    chosen = parser.parse_args(arguments)
    try:
        trusted = trusted_in(chosen.trusted) if chosen.trusted else None
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    found = verify_certificate(chosen.report, trusted)
    for fault in found.faults:
        sys.stderr.write(fault + "\n")
    judgement = "DOES NOT HOLD" if found.faults else "HOLDS"
    sys.stdout.write(
        f"verdict {found.verdict or 'none'}, signed by {found.key_id or 'nobody'}: {judgement}\n"
    )
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
