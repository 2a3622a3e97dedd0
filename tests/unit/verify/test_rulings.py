"""Judged items: their scores follow from what the judge said in both orders."""

from __future__ import annotations

import pytest
from tests.unit.verify.issuing import decided, joined, parts, signer

from modelyard.core.digests import digest_bytes
from modelyard.verify.certificate import verify_certificate


@pytest.fixture(scope="module")
def key():
    return signer()


@pytest.fixture(scope="module")
def trusted(key):
    return {key.key_id: key.public_pem}


def judged(verdicts, texts=("one", "other"), score=None):
    """A comparison of one item that a judge decided, and the lines of verdicts.jsonl."""
    made = decided(1, 0, 11, method="sign")
    report = parts(made)
    lines = [
        {"item": "i000", "sample": 0, "answer_a": side, "error": "", "text": f"Verdict: {said}",
         "verdict": said}
        for side, said in zip(("baseline", "candidate"), verdicts, strict=True)
    ]  # fmt: skip
    for line in report.pack:
        line["scorer"]["id"] = "judge"
    for line in report.answers:
        line["scorer"], line["score"], line["text"] = "judge", 0.5, "the same"
        if line["item"] == "i000":
            line["text"] = texts[line["side"] == "candidate"]
            line["score"] = score[line["side"] == "candidate"]
    report.report["judge"] = {
        "name": "judge", "version": "1", "raw_outputs": "verdicts.jsonl",
        "raw_outputs_digest": digest_bytes(joined(lines)),
    }  # fmt: skip
    return report, lines


@pytest.mark.parametrize(
    ("said", "score"),
    [
        (("b", "a"), (0.0, 1.0)),  # the candidate, whatever its place
        (("a", "b"), (1.0, 0.0)),
        (("a", "a"), (0.5, 0.5)),  # whoever stands first
        (("b", "tie"), (0.5, 0.5)),
        (("tie", "tie"), (0.5, 0.5)),
    ],
)
def test_judged_scores_follow_from_the_verdicts_of_both_orders(tmp_path, key, trusted, said, score):
    for given in {score, (0.0, 1.0), (1.0, 0.0)}:
        report, lines = judged(said, score=given)
        (tmp_path / "verdicts.jsonl").write_bytes(joined(lines))
        faults = [f for f in verify_certificate(report.write(tmp_path, key), trusted).faults if "judge" in f]
        assert bool(faults) == (given != score)


@pytest.mark.parametrize(
    ("texts", "score"),
    [(("", "an answer"), (0.0, 1.0)), (("", " "), (0.0, 0.0)), (("alike", " alike"), (0.5, 0.5))],
)
def test_where_no_judge_is_needed_the_verdicts_do_not_count(tmp_path, key, trusted, texts, score):
    report, lines = judged(("a", "b"), texts, score)
    (tmp_path / "verdicts.jsonl").write_bytes(joined(lines))
    faults = verify_certificate(report.write(tmp_path, key), trusted).faults
    assert not any("judge" in fault or "worth" in fault for fault in faults)


def test_a_verdict_that_the_judges_text_does_not_say_is_noticed(tmp_path, key, trusted):
    report, lines = judged(("b", "a"), score=(0.0, 1.0))
    lines[0]["text"] = "Verdict: B, or no: verdict: **tie**"
    report.report["judge"]["raw_outputs_digest"] = digest_bytes(joined(lines))
    (tmp_path / "verdicts.jsonl").write_bytes(joined(lines))
    told = "the verdict stated is 'b', the text says 'tie'"
    assert any(told in fault for fault in verify_certificate(report.write(tmp_path, key), trusted).faults)
    report.report["judge"] = None
    told = "judge: 24 answers are scored by one, the report names none"
    assert told in verify_certificate(report.write(tmp_path, key), trusted).faults
