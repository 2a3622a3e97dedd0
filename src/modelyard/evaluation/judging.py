"""A model as the judge: an answer beside the example's first reference, in both orders.

Judges like what stands first, or last. So each answer is judged twice with its place changed: it is worth
1 where it wins both times, 0 where it loses both times, and 0.5 otherwise. A judge that gives no verdict
has called it a tie. Verdicts are answers like others: kept, and not paid for twice. Pairwise judging with
positions swapped is from Zheng et al., 2023 (arXiv 2306.05685), section 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelyard.evaluation.answer_store import answer_key
from modelyard.evaluation.interview import Interview, Surroundings, interview
from modelyard.evaluation.pool import PoolModel
from modelyard.evaluation.questions import question_of
from modelyard.results.engines import Question, Reply
from modelyard.results.examples import Example, Score
from modelyard.results.scorers import load_scorer
from modelyard.runs.yard import Yard

#: Of the instruction and of how verdicts are read and counted.
VERSION = "1"
_INSTRUCTION = """\
Compare two answers to a question. Judge only whether they are correct and answer what was asked, not their \
length, their tone or their place.

[Question]
{question}

[Answer A]
{first}

[Answer B]
{second}

Which answer is better? End with one line: "Verdict: A", "Verdict: B" or "Verdict: tie"."""
_VERDICT = re.compile(r"verdict\W{0,6}(a|b|tie)\b", re.IGNORECASE)
#: An answer's place in the two questions.
_PLACES = ("a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Scores by example and answer, and what came of asking the judge."""

    scores: Mapping[tuple[str, str], Score]
    interview: Interview


def needs_verdict(example: Example, reply: Reply) -> bool:
    """Whether a reply is worth what a judge says; no answer is worth nothing without one."""
    return load_scorer(example.scorer).by_verdict and bool((reply.text or "").strip())


def judge_all(
    yard: Yard, judge: PoolModel, answers: Iterable[tuple[Example, str]], around: Surroundings
) -> Verdicts:
    """The verdicts on answers; equal answers to one example are judged once."""
    pairs = {(example.id, answer): (example, answer) for example, answer in answers}
    asked = {
        named: [(answer_key(judge.identity, question), question) for question in verdict_questions(*pair)]
        for named, pair in pairs.items()
    }
    held = interview(yard, judge, {key: one for both in asked.values() for key, one in both}, around)
    said = {key: reply for key, reply in held.replies.items() if reply.text is not None}
    scores = {
        named: score_of(*(said[key] for key, _ in both))
        for named, both in asked.items()
        if all(key in said for key, _ in both)
    }
    return Verdicts(scores=scores, interview=held)


def verdict_questions(example: Example, answer: str) -> tuple[Question, Question]:
    """The answer first, then the reference first."""
    return pair_questions(example, answer, example.answers[0])


def pair_questions(example: Example, one: str, other: str) -> tuple[Question, Question]:
    """Two answers beside each other: the one first, then the other first."""
    asked = question_of(example).text()
    return (
        _question(example.id, question=asked, first=one, second=other),
        _question(example.id, question=asked, first=other, second=one),
    )


def score_of(first: Reply, second: Reply) -> Score:
    """What two verdicts say of the answer, which stood first in the first."""
    said = [verdict(reply.text) for reply in (first, second)]
    told = ", ".join(each or "none" for each in said)
    wins = [place == each for place, each in zip(_PLACES, said, strict=True)]
    losses = [each not in (place, "tie", None) for place, each in zip(_PLACES, said, strict=True)]
    value = 1.0 if all(wins) else 0.0 if all(losses) else 0.5
    return Score(value=value, why=f"the judge's verdicts: {told}")


def verdict(text: str | None) -> str | None:
    """`a`, `b` or `tie`, as the last line that says so has it."""
    found = _VERDICT.findall(text or "")
    return str(found[-1]).lower() if found else None


def _question(example_id: str, **parts: str) -> Question:
    # one pass: what an answer says cannot be taken for a place of the instruction
    text = re.sub(r"\{(question|first|second)\}", lambda m: parts[m[1]], _INSTRUCTION)
    return Question(example_id=example_id, prompt=text)
