"""What a certificate must agree with beyond the files beside it: our scorers, and the journal of its yard.

The recomputation of its figures is not here; that is `modelyard.verify.certificate`, which shares no code
with those who issue certificates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelyard.core.errors import ModelyardError
from modelyard.core.journal import Journal
from modelyard.evidence.report import ISSUED, PACK
from modelyard.results.examples import SPLITS, Example, read_examples, set_digest
from modelyard.results.scorers import load_scorer

_CLOSE = 1e-9


def rescored_faults(folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Where a text, scored anew, has another score than the certificate has; judged items are left out.

    Args:
        folder: Of the certificate.
        report: Its report, whose files were found to be whole.

    Raises:
        DocumentError: The snapshot of the pack is no pack.
    """
    examples = {example.id: example for example in read_examples(folder / PACK, pack=True)}
    lines = (folder / str(report["raw_outputs"])).read_text(encoding="utf-8").splitlines()
    found = (_rescored(examples, json.loads(line)) for line in lines)
    return [fault for fault in found if fault]


def journal_faults(journal: Journal, folder: Path, report: Mapping[str, Any], digest: str) -> list[str]:
    """Where the journal of the yard that issued a certificate says otherwise, or nothing at all.

    Args:
        journal: Of that yard.
        folder: Of the certificate.
        report: Its report, whose files were found to be whole.
        digest: Of the report's file.

    Raises:
        DocumentError: The snapshot of the pack is no pack.
    """
    own = [entry for entry in journal.read() if entry.run == report["id"]]
    opened = [entry.data for entry in own if entry.kind == "set.opened"]
    issued = [entry.data for entry in own if entry.kind == ISSUED]
    return [*_unopened(opened, folder, report), *_unissued(issued, digest)]


def _rescored(examples: Mapping[str, Example], line: Mapping[str, Any]) -> str:
    place = f"answers: {line['asked']} ({line['side']} on {line['item']})"
    try:
        scorer = load_scorer(line["scorer"])
    except ModelyardError as error:
        return f"{place} cannot be scored: {error}"
    if scorer.by_verdict:
        return ""
    if scorer.version != line["scorer_version"]:
        scored = f"was scored by {scorer.name} {line['scorer_version']}"
        return f"{place} {scored}, and {scorer.version} is installed: it cannot be scored anew"
    value = 0.0 if line["error"] else scorer.score(examples[line["item"]], line["text"]).value
    if abs(value - line["score"]) <= _CLOSE:
        return ""
    return f"{place} has the score {line['score']}, scored anew it is {value}"


def _unopened(opened: Sequence[Mapping[str, Any]], folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Whether the items that were looked at are those that the report is about."""
    if not opened:
        return [f"journal: no entry says that {report['id']} opened its pack"]
    # where they stand in a pack is no part of what items are
    examples = read_examples(folder / PACK, pack=True)
    items = set_digest(tuple(replace(example, split=SPLITS[0]) for example in examples))
    pack = report["prompt_pack"]
    stated = {"set_digest": pack.get("digest"), "split": pack.get("split"), "items_digest": items}
    return [
        f"journal: {report['id']} opened a pack of {name} {entry.get(name)!r}, the certificate has {value!r}"
        for entry in opened[:1]
        for name, value in stated.items()
        if entry.get(name) != value
    ]


def _unissued(issued: Sequence[Mapping[str, Any]], digest: str) -> list[str]:
    known = [entry.get("report_digest") for entry in issued]
    if not known:
        return ["journal: no entry says that the certificate was issued"]
    if digest in known:
        return []
    return [f"journal: the report that was issued has the digest {known[0]}, this one has {digest}"]
