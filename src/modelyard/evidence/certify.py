"""Certification: two models answer the same frozen items, and a signed report says what that shows.

Everything of one comparison lies in certificates/ID of the yard: the answers as they come, so that a kill
loses none and no answer is asked for twice, and at last the report, after the files that it names. The
same call goes on with the same comparison, and gives the report that there is once it has been issued.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.digests import digest_path
from modelyard.core.errors import EvidenceError, SignatureError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json, write_whole
from modelyard.core.journal import Draft
from modelyard.core.locks import held
from modelyard.core.signing import OWN_KEY, TRUSTED, Signer, open_signer, trusted_keys, verify_record
from modelyard.evaluation.interview import Surroundings
from modelyard.evidence.answers import BASELINE, CANDIDATE, answer_lines, open_panel
from modelyard.evidence.comparison import Comparison
from modelyard.evidence.duels import open_referee
from modelyard.evidence.hearing import Heard, hear
from modelyard.evidence.overlap import Overlap, find_overlap
from modelyard.evidence.packs import Look, open_pack, snapshot
from modelyard.evidence.report import ANSWERS, ISSUED, PACK, REPORT, VERDICTS, Facts, report_record
from modelyard.evidence.secondary import tag_comparisons
from modelyard.evidence.verdict import Judgement, judge
from modelyard.runs.yard import Yard

#: What of an entry says that two certificates are about the same.
_SUBJECT = ("candidate", "baseline", "pack")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the candidate comes from, as far as the report tells."""

    # The run that made it.
    run_id: str | None = None
    # What it was trained on.
    training_data: tuple[Path, ...] = ()
    # Whether an overlap of the pack with that ends the certification instead of being recorded.
    refuse_overlap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """What came of a certification; no report where a stop was asked for."""

    id: str
    folder: Path
    report: Mapping[str, Any] | None = None
    # Of the report's file.
    report_digest: str = ""
    # Whether it was issued before.
    before: bool = False
    # Certificates that were issued before this one for the same two models on the same pack.
    earlier: tuple[str, ...] = ()


def certify(
    yard: Yard,
    comparison: Comparison,
    around: Surroundings,
    provenance: Provenance = Provenance(),
    *,
    clock: Clock = utc_now,
) -> Certified:
    """Ask what has not been answered, judge it, and issue the signed report.

    Raises:
        EngineError: A model or the judge cannot be asked: there is no verdict, and the same call goes on.
        EvidenceError: The split is retired, the overlap is refused, another process works on this
            comparison, or a model answered nothing at all.
        DocumentError: The split is empty.
        JournalError: Nothing can be recorded.
        SignatureError: The yard's key cannot be used, or an issued report was changed.
    """
    folder = yard.root / "certificates" / comparison.id
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        before = (folder / REPORT).exists()
        if not before:
            signer = _signer(yard)
            overlap = _overlap(comparison, provenance)
            look = _look(yard, comparison)
            answers = _answers(comparison, look, folder, around)
            if answers is None:
                return Certified(id=comparison.id, folder=folder)
            created_at = stamp(clock())
            facts = _facts(comparison, answers, look, overlap, provenance.run_id, created_at)
            _write(folder, facts, signer.sign(report_record(facts, answers.judgement)))
        return _issue(yard, comparison, folder, before=before)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What was answered, what that shows, and what is kept of it."""

    heard: Heard
    judgement: Judgement
    judge: Mapping[str, Any] | None
    # Contents of the files beside the report, by name.
    files: Mapping[str, bytes]


def _signer(yard: Yard) -> Signer:
    """The yard's own key, which has to count here: else nobody would believe what it signs."""
    signer = open_signer(yard.keys_dir / OWN_KEY, create=True)
    if signer.key_id not in trusted_keys(yard.keys_dir / TRUSTED):
        raise SignatureError(
            f"{yard.keys_dir / OWN_KEY}: its public key is none of those in {TRUSTED}/ beside it; put it "
            "back there, or move this key away to get a new one"
        )
    return signer


def _look(yard: Yard, comparison: Comparison) -> Look:
    terms = comparison.terms
    look = open_pack(comparison.pack, yard.journal, comparison.opening, retired_after=terms.retired_after)
    failpoint("certify.after_opened")
    return look


def _answers(comparison: Comparison, look: Look, folder: Path, around: Surroundings) -> _Answers | None:
    """Everything asked and judged; None where a stop was asked for."""
    with ExitStack() as stack:
        panel = stack.enter_context(open_panel(folder, comparison.models, around))
        referee = None
        if comparison.judge is not None:
            referee = stack.enter_context(open_referee(folder, comparison.judge, around))
        heard = hear(comparison, comparison.blocks(look.items), panel, referee)
        if heard is None:
            return None
        files = {PACK: snapshot(look.items), ANSWERS: answer_lines(heard.answers, comparison.models)}
        if referee is not None:
            files[VERDICTS] = referee.verdict_lines()
        return _Answers(
            heard=heard, judgement=judge(heard.outcomes, comparison.design),
            judge=None if referee is None else referee.record(), files=files,
        )  # fmt: skip


def _facts(
    comparison: Comparison, answers: _Answers, look: Look, overlap: Overlap | None, run_id: str | None,
    created_at: str,
) -> Facts:  # fmt: skip
    return Facts(
        id=comparison.id,
        created_at=created_at,
        run_id=run_id,
        pack=comparison.pack,
        split=comparison.terms.split,
        look=look,
        items_asked=len(answers.heard.outcomes.answered),
        overlap=overlap,
        models=comparison.models,
        whole=comparison.terms.whole,
        secondary=tag_comparisons(
            answers.heard.outcomes, {item.id: item.tags for item in look.items}, comparison.design
        ),
        judge=answers.judge,
        files=answers.files,
    )


def _write(folder: Path, facts: Facts, report: Mapping[str, Any]) -> None:
    """The report, after the files that it names."""
    failpoint("certify.before_files")
    for name, content in facts.files.items():
        write_whole(folder / name, content)
    failpoint("certify.before_report")
    write_json(folder / REPORT, report)
    failpoint("certify.before_issued")


def _issue(yard: Yard, comparison: Comparison, folder: Path, *, before: bool) -> Certified:
    """The report in a folder, after its entry in the journal, which may be missing after a kill."""
    report, digest = _read_report(yard, folder / REPORT), digest_path(folder / REPORT)
    data = {
        "id": comparison.id,
        "verdict": report["verdict"],
        "report": str(folder / REPORT),
        "report_digest": digest,
        "candidate": report[CANDIDATE]["digest"],
        "baseline": report[BASELINE]["digest"],
        "run_id": report["run_id"],
        "pack": report["prompt_pack"]["digest"],
    }
    entries = [entry.data for entry in yard.journal.read() if entry.kind == ISSUED]
    ids = [told.get("id") for told in entries]
    own = [told["report_digest"] for told in entries if told.get("id") == comparison.id]
    if report["id"] != comparison.id or own not in ([], [digest]):
        raise EvidenceError(
            f"{folder / REPORT}: is not the report that was issued; restore it, or move the folder away and "
            "certify with another --seed"
        )
    if not own:
        yard.journal.append([Draft(kind=ISSUED, run=comparison.id, data=data)])
    since = entries[: ids.index(comparison.id)] if own else entries
    earlier = tuple(told["id"] for told in since if all(told.get(name) == data[name] for name in _SUBJECT))
    return Certified(
        id=comparison.id, folder=folder, report=report, report_digest=digest, before=before, earlier=earlier
    )


def _read_report(yard: Yard, path: Path) -> Mapping[str, Any]:
    """A report of this yard, with its signature checked. Raises `SignatureError`."""
    try:
        report: Mapping[str, Any] = read_json(path)
    except ValueError as error:
        raise EvidenceError(f"{path}: is not JSON ({error}); restore it from a backup") from error
    verify_record(report, trusted_keys(yard.keys_dir / TRUSTED))
    return report


def _overlap(comparison: Comparison, provenance: Provenance) -> Overlap | None:
    """What of the pack stands in the training data; None where none was given."""
    if not provenance.training_data:
        return None
    found = find_overlap(comparison.pack.sealed(comparison.terms.split), provenance.training_data)
    if found.found and provenance.refuse_overlap:
        named = ", ".join((*found.exact, *found.ngram)[:5])
        raise EvidenceError(
            f"{comparison.pack.path}: {len(found.exact)} items stand in the training data and "
            f"{len(found.ngram)} share words with it ({named}); take them out of the pack or of the data, or "
            "record the overlap instead of refusing it"
        )
    return found


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    try:
        with held(folder / "lock"):
            yield
    except BlockingIOError as error:
        raise EvidenceError(
            f"{folder}: another process works on this comparison; wait for its end"
        ) from error
