"""A judge between two models: the candidate's answer beside the baseline's, in both orders.

The judge sees a question and two answers, and never whose they are; which model stands first in the first
of the two orders is drawn with the seed. A model that wins in both orders has the score 1 and the other 0;
all else is a tie, 0.5 each. No answer loses to an answer without a judge, and equal answers tie.
See `modelyard.evaluation.judging` for how the judge is asked and read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.digests import canonical_json, digest_json
from modelyard.core.errors import EngineError
from modelyard.evaluation import judging
from modelyard.evaluation.answer_store import AnswerStore, open_store
from modelyard.evaluation.asking import Asker, Lane, ask_lanes
from modelyard.evaluation.interview import Surroundings, conversing
from modelyard.evaluation.judging import pair_questions, score_of, verdict
from modelyard.evaluation.pool import PoolModel
from modelyard.evidence.answers import BASELINE, CANDIDATE, SIDES, Answer
from modelyard.results.engines import Question, Reply
from modelyard.results.scorers import load_scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Two answers to one question, and how the judge is asked about them."""

    # By side.
    answers: Mapping[str, Answer]
    # The side that stands first in the first question.
    first: str
    keys: tuple[str, str]
    questions: tuple[Question, Question]

    @property
    def second(self) -> str:
        """The other side."""
        return CANDIDATE if self.first == BASELINE else BASELINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """A duel and what the judge said of it, in both orders; a reply without text is none."""

    duel: Duel
    replies: tuple[Reply, Reply]

    def answers(self) -> list[Answer]:
        """Both answers with their scores."""
        told = all(reply.text is not None for reply in self.replies)
        first = score_of(*self.replies).value if told else 0.5
        scores = {self.duel.first: first, self.duel.second: 1.0 - first}
        return [replace(self.duel.answers[side], score=scores[side]) for side in SIDES]

    def records(self, judge: PoolModel) -> Iterator[dict[str, Any]]:
        """Lines of verdicts.jsonl."""
        call, orders = self.duel.answers[BASELINE].call, (self.duel.first, self.duel.second)
        for first, reply in zip(orders, self.replies, strict=True):
            yield {
                "item": call.item.id,
                "sample": call.sample,
                "answer_a": first,
                "text": reply.text,
                "error": reply.error,
                "verdict": verdict(reply.text),
                "latency_s": reply.latency_s,
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
                "cost_usd": judge.price.of(reply),
            }


class Referee:
    """A judge with its file of verdicts; its engine is opened when something is to be judged."""

    def __init__(self, judge: PoolModel, store: AnswerStore, around: Surroundings) -> None:
        self.judge = judge
        self.rulings: list[Ruling] = []
        self._store, self._around = store, around
        self._asker: Asker | None = None
        self._open = ExitStack()

    def rule(self, duels: Sequence[Duel], *, of_all: int) -> list[Answer] | None:
        """All answers with their scores, or None where a stop was asked for before.

        Args:
            duels: What is to be judged now.
            of_all: How many questions the judge gets at most in the whole comparison.

        Raises:
            EngineError: The judge cannot be asked, or gave no verdict for a reason that may pass.
        """
        questions = {key: each for duel in duels for key, each in zip(duel.keys, duel.questions, strict=True)}
        answered = self._store.answered()
        left = {key: each for key, each in questions.items() if key not in answered}
        if left and not self._around.stop():
            self._asker = self._asker or self._opened(of_all)
            tasks = [(self._asker, key, question) for key, question in left.items()]
            ask_lanes([Lane(tasks=tasks, threads=self.judge.manners.parallel)], self._around.stop)
        replies = self._store.replies(questions)
        if len(replies) < len(questions):
            return None
        failed = next((reply.error for reply in replies.values() if reply.again), "")
        if failed:
            raise EngineError(f"the judge gave no verdict ({failed}); go on with the same command")
        rulings = [
            Ruling(duel=duel, replies=(replies[duel.keys[0]], replies[duel.keys[1]])) for duel in duels
        ]
        self.rulings.extend(rulings)
        return [answer for ruling in rulings for answer in ruling.answers()]

    @property
    def unjudged(self) -> int:
        """Duels that count as ties because the judge would not answer."""
        return sum(any(reply.text is None for reply in ruling.replies) for ruling in self.rulings)

    def verdict_lines(self) -> bytes:
        """The file verdicts.jsonl: canonical JSON lines by item and sample."""
        lines = [line for ruling in self.rulings for line in ruling.records(self.judge)]
        lines.sort(key=lambda line: (line["item"], line["sample"]))
        return b"".join(canonical_json(line) + b"\n" for line in lines)

    def record(self) -> dict[str, Any]:
        """Who judged, as a report has it."""
        judge = self.judge
        return {
            "name": judge.name,
            "identity": judge.identity,
            "digest": judge.digest,
            "version": judging.VERSION,
            "unjudged": self.unjudged,
        }

    def close(self) -> None:
        """Let go of the engine."""
        self._open.close()

    def _opened(self, of_all: int) -> Asker:
        talk = conversing(self.judge, self._store, self._around)
        return Asker(self._open.enter_context(talk), of_all)


@contextmanager
def open_referee(folder: Path, judge: PoolModel, around: Surroundings) -> Iterator[Referee]:
    """A judge with its file in the folder of a comparison.

    Raises:
        EvaluationError: Another process asks for this comparison, or the file cannot be used.
    """
    with open_store(folder / "judge.sqlite") as store, closing(Referee(judge, store, around)) as referee:
        yield referee


def settled(answers: Mapping[str, Answer]) -> list[Answer] | None:
    """Both answers of one question with their scores where no judge is needed, else None."""
    said = {
        side: "" if answer.missing else (answer.reply.text or "").strip() for side, answer in answers.items()
    }
    if all(said.values()):
        if said[BASELINE] != said[CANDIDATE]:
            return None
        return [replace(answers[side], score=0.5) for side in SIDES]
    return [replace(answers[side], score=1.0 if said[side] else 0.0) for side in SIDES]


def duel_of(answers: Mapping[str, Answer], *, comparison: str, seed: int) -> Duel:
    """Two answers to one question as the judge is asked about them."""
    call = answers[BASELINE].call
    first = random.Random(f"{seed} {call.item.id} {call.sample}").choice(SIDES)
    second = CANDIDATE if first == BASELINE else BASELINE
    texts = [answers[side].reply.text or "" for side in (first, second)]
    questions = pair_questions(call.item, *texts)
    one, other = (
        digest_json(
            {
                **each.content(),
                "comparison": comparison,
                "item": call.item.id,
                "sample": call.sample,
                "order": i,
            }
        )
        for i, each in enumerate(questions)
    )
    return Duel(answers=answers, first=first, keys=(one, other), questions=questions)


def needs_judge(answer: Answer) -> bool:
    """Whether an answer is compared with the other model's."""
    return load_scorer(answer.call.item.scorer).by_verdict
