"""The page of a certificate: what is signed, in pictures; nothing else is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.core.errors import EvidenceError
from modelyard.core.signing import open_signer
from modelyard.evidence.page import certificate_page
from modelyard.reports.page import render
from modelyard.testing.certificates import MadeUp, make_certificate


def made(folder: Path, **told: int) -> Path:
    signer = open_signer(folder / "keys" / "yard.pem", create=True)
    made_up = MadeUp(candidate="new", baseline="old", **told)
    return make_certificate(folder / "certificate", made_up, signer)


def test_the_counts_the_interval_and_the_verdict_are_those_of_the_report(tmp_path: Path) -> None:
    path = made(tmp_path, items=24, wins=12, losses=2)
    report = json.loads(path.read_text())
    page = certificate_page(path)
    assert page.subtitle.startswith("passed")
    outcome = next(section for section in page.sections if section.title == "Paired outcome")
    counts = report["counts"]
    assert f"candidate wins {counts['n01']}" in outcome.figures[0].alt
    assert f"candidate loses {counts['n10']}" in outcome.figures[0].alt
    low, high = (100 * bound for bound in report["effect"]["ci"])
    assert f"interval {low:+.2f} to {high:+.2f}" in outcome.figures[1].alt
    text = render(page)
    assert all(reason.replace("'", "&#39;") in text for reason in report["reasons"])


def test_lost_items_stand_beside_both_answers(tmp_path: Path) -> None:
    path = made(tmp_path, items=24, wins=12, losses=2)
    lost = json.loads(path.read_text())["pairwise_losses"]
    failures = next(s for s in certificate_page(path).sections if s.title == "Failures")
    assert [row[0] for row in failures.tables[0].rows] == lost
    assert len(lost) == 2


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"schema": "x"}')
    with pytest.raises(EvidenceError, match="is no report of a paired evaluation"):
        certificate_page(tmp_path / "other.json")
