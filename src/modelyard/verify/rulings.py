"""What a judge between two models said, and the scores that follow from it.

An answer is worth 1 where the judge preferred it in both orders, 0 where it preferred the other in both,
else 1/2. No answer loses to an answer without a judge; two equal answers are worth 1/2 each, two missing
ones nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.verify.lines import misshapen, read_lines

_SCORER = "judge"
_FORM = {
    "item": str, "sample": int, "answer_a": str, "text": (str, type(None)), "error": str,
    "verdict": (str, type(None)),
}  # fmt: skip
#: How version 1 of the instruction asks the judge to end.
_LAST_LINE = re.compile(r"verdict\W{0,6}(a|b|tie)\b", re.IGNORECASE)

Line = Mapping[str, Any]


def ruling_faults(folder: Path, report: Mapping[str, Any], answers: Sequence[Line]) -> list[str]:
    """Where the scores of judged items are not what the judge said."""
    judged = [line for line in answers if line["scorer"] == _SCORER]
    judge = report.get("judge")
    if not isinstance(judge, dict):
        return [f"judge: {len(judged)} answers are scored by one, the report names none"] if judged else []
    faults: list[str] = []
    name = judge.get("raw_outputs")
    rulings = read_lines(folder, name, judge.get("raw_outputs_digest"), faults, may_be_empty=True)
    if rulings is None or misshapen(str(name), rulings, _FORM, faults):
        return faults
    if judge.get("version") == "1":
        faults += [_misread(line) for line in rulings if _said(line["text"]) != line["verdict"]]
    by_answer = {(line["item"], line["sample"], line["side"]): line for line in judged}
    by_question: dict[tuple[str, int], list[Line]] = {}
    for ruling in rulings:
        by_question.setdefault((ruling["item"], ruling["sample"]), []).append(ruling)
    for (item, sample, side), line in by_answer.items():
        other = by_answer.get((item, sample, "candidate" if side == "baseline" else "baseline"))
        due = None if other is None else _worth(line, other, by_question.get((item, sample), []))
        if due is not None and due != line["score"]:
            place = f"answers: {line['asked']} ({side} on {item})"
            faults.append(f"{place} has the score {line['score']}, the judge's verdicts make it {due}")
    return faults


def _worth(line: Line, other: Line, rulings: Sequence[Line]) -> float:
    own, its = ("" if each["error"] else (each["text"] or "").strip() for each in (line, other))
    if not own or not its:
        return 1.0 if own else 0.0
    sides = {line["side"], other["side"]}
    if own == its or len(rulings) != len(sides) or {each["answer_a"] for each in rulings} != sides:
        return 0.5
    won = [each["verdict"] == ("a" if each["answer_a"] == line["side"] else "b") for each in rulings]
    lost = [each["verdict"] == ("b" if each["answer_a"] == line["side"] else "a") for each in rulings]
    return 1.0 if all(won) else 0.0 if all(lost) else 0.5


def _said(text: str | None) -> str | None:
    found = _LAST_LINE.findall(text or "")
    return str(found[-1]).lower() if found else None


def _misread(line: Line) -> str:
    place = f"judge: on {line['item']}, sample {line['sample']}, {line['answer_a']} first"
    return f"{place}: the verdict stated is {line['verdict']!r}, the text says {_said(line['text'])!r}"
