"""Asking both models of a comparison, side by side, and what they said.

The items come in a seeded random order, in small blocks; within a block the calls of both models stand in
random order. Models of two lanes are asked at the same time, each in that order; models of one lane are
asked out of one queue, so that whatever changes with time changes for both. An answer is kept as soon as
it is there, in a file of this comparison alone, and is never asked for again.

Every call counts (intention to treat): no answer, and one that was cut off at its limit of tokens, is a
failure of its model, and is one for good. But a model that stops answering altogether says nothing of the
items: then asking ends with an error, and those last failures are forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.digests import canonical_json, digest_json
from modelyard.core.errors import EngineError
from modelyard.evaluation.answer_store import AnswerStore, open_store
from modelyard.evaluation.asking import Asker, Lane, ask_lanes
from modelyard.evaluation.interview import Surroundings, conversing
from modelyard.evaluation.pool import PoolModel
from modelyard.evaluation.questions import question_of
from modelyard.results.engines import THIS_MACHINE, Question, Reply
from modelyard.results.examples import Example
from modelyard.results.scorers import load_scorer

BASELINE, CANDIDATE = "baseline", "candidate"
SIDES = (BASELINE, CANDIDATE)
#: Items of a block.
BLOCK_ITEMS = 8
#: How an engine's options call the most tokens of an answer.
_LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One question to one model."""

    # Its place among all calls, from 1, and the place of its item, from 0.
    asked: int
    order: int
    item: Example
    side: str
    sample: int
    # Names it for ever, in this comparison alone.
    key: str
    question: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A call and what came of it; `error` says why there is no whole answer, and then the score is 0."""

    call: Call
    reply: Reply
    score: float
    error: str = ""

    @property
    def missing(self) -> bool:
        """Whether there is no whole answer."""
        return bool(self.error)


def blocks_of(
    items: Sequence[Example], *, comparison: str, samples: int, seed: int
) -> list[tuple[Call, ...]]:
    """The calls of a comparison, block by block, in the order in which they are asked.

    Args:
        items: In their random order.
        comparison: Its id.
        samples: How often each model is asked each item.
        seed: Of the order within blocks.
    """
    chance, blocks, asked = random.Random(seed), [], 0
    for begin in range(0, len(items), BLOCK_ITEMS):
        drawn = [
            (order, side, sample)
            for order in range(begin, min(begin + BLOCK_ITEMS, len(items)))
            for sample in range(samples)
            for side in SIDES
        ]
        chance.shuffle(drawn)
        calls = []
        for order, side, sample in drawn:
            asked += 1
            item = items[order]
            named = {"comparison": comparison, "item": item.id, "side": side, "sample": sample}
            call = Call(
                asked=asked, order=order, item=item, side=side, sample=sample, key=digest_json(named),
                question=question_of(item, sample),
            )  # fmt: skip
            calls.append(call)
        blocks.append(tuple(calls))
    return blocks


class Panel:
    """Both models with their files of answers; engines are opened when something is to be asked."""

    def __init__(
        self, models: Mapping[str, PoolModel], stores: Mapping[str, AnswerStore], around: Surroundings
    ) -> None:
        self._models, self._stores, self._around = models, stores, around
        self._askers: dict[str, Asker] = {}
        self._open = ExitStack()
        self._replies: dict[str, dict[str, Reply]] = {side: {} for side in SIDES}

    def load(self, calls: Sequence[Call]) -> None:
        """Take up what was answered before; `calls` are all that there will ever be."""
        for side, store in self._stores.items():
            keys = [call.key for call in calls if call.side == side]
            self._replies[side] = store.replies(keys)

    def known(self, call: Call) -> Reply | None:
        """The reply to a call, where there is one."""
        return self._replies[call.side].get(call.key)

    def ask(self, calls: Sequence[Call], *, of_all: int) -> None:
        """Ask those of the calls that have no reply, until a stop is asked for.

        Args:
            calls: In the order in which they are to be asked.
            of_all: How many calls each model gets in the whole comparison.

        Raises:
            EngineError: A model cannot be asked at all, or stopped answering.
        """
        left = [call for call in calls if self.known(call) is None]
        if not left or self._around.stop():
            return
        for side in SIDES:
            if side not in self._askers and any(call.side == side for call in left):
                self._askers[side] = self._asker(side, of_all)
        try:
            ask_lanes(self._lanes(left), self._around.stop)
        except EngineError:
            for side, asker in self._askers.items():
                self._stores[side].forget(asker.failed_in_a_row)
            raise

    def forget(self, side: str) -> None:
        """Drop all replies of a model, so that it is asked again."""
        self._stores[side].forget(self._replies[side])
        self._replies[side].clear()

    def close(self) -> None:
        """Let go of the engines."""
        self._open.close()

    def _asker(self, side: str, of_all: int) -> Asker:
        known = self._replies[side]
        talk = conversing(self._models[side], self._stores[side], self._around, known.__setitem__)
        return Asker(self._open.enter_context(talk), of_all)

    def _lanes(self, calls: Sequence[Call]) -> list[Lane]:
        models = self._models
        lanes = {model.settings.lane for model in models.values()}
        parallel = {side: model.manners.parallel for side, model in models.items()}
        if len(lanes) == 1:
            threads = 1 if THIS_MACHINE in lanes else min(parallel.values())
            return [Lane(tasks=[self._task(call) for call in calls], threads=threads)]
        return [
            Lane(tasks=[self._task(call) for call in calls if call.side == side], threads=parallel[side])
            for side in SIDES
        ]

    def _task(self, call: Call) -> tuple[Asker, str, Question]:
        return self._askers[call.side], call.key, call.question


@contextmanager
def open_panel(folder: Path, models: Mapping[str, PoolModel], around: Surroundings) -> Iterator[Panel]:
    """The models of a comparison with its files of answers, which are made where they are missing.

    Raises:
        EvaluationError: Another process asks for this comparison, or a file cannot be used.
    """
    with ExitStack() as stack:
        stores = {side: stack.enter_context(open_store(folder / f"{side}.sqlite")) for side in SIDES}
        panel = Panel(models, stores, around)
        stack.callback(panel.close)
        yield panel


def answered(call: Call, reply: Reply, model: PoolModel, *, whole: bool) -> Answer:
    """A reply with its score; those of a judge's items are scored anew in `duels`.

    Args:
        call: What was asked.
        reply: What came of it.
        model: Who was asked.
        whole: Whether an answer of as many tokens as its limit allows is a failure.
    """
    error = _missing(call, reply, model, whole=whole)
    score = 0.0 if error else load_scorer(call.item.scorer).score(call.item, reply.text).value
    return Answer(call=call, reply=reply, score=score, error=error)


def _missing(call: Call, reply: Reply, model: PoolModel, *, whole: bool) -> str:
    """Why there is no whole answer; empty where there is."""
    if reply.text is None:
        return reply.error or "no answer"
    limit = _token_limit(model)
    if not whole or limit is None or call.question.letters or reply.completion_tokens is None:
        return ""
    if reply.completion_tokens < limit:
        return ""
    return f"truncated: it has all {limit} tokens that it may have"


def _token_limit(model: PoolModel) -> int | None:
    options = model.identity.get("options")
    found = [options.get(name) for name in _LIMITS] if isinstance(options, Mapping) else []
    return next((each for each in found if isinstance(each, int) and not isinstance(each, bool)), None)


def record(answer: Answer, model: PoolModel) -> dict[str, Any]:
    """One line of answers.jsonl."""
    call, reply, scorer = answer.call, answer.reply, load_scorer(answer.call.item.scorer)
    return {
        "asked": call.asked,
        "order": call.order,
        "item": call.item.id,
        "side": call.side,
        "sample": call.sample,
        "text": reply.text,
        "error": answer.error,
        "score": answer.score,
        "scorer": scorer.name,
        "scorer_version": scorer.version,
        "cluster": call.item.group_id or call.item.id,
        "weight": call.item.weight,
        "critical": call.item.critical,
        "latency_s": reply.latency_s,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "cost_usd": model.price.of(reply),
    }


def answer_lines(answers: Sequence[Answer], models: Mapping[str, PoolModel]) -> bytes:
    """The file answers.jsonl: canonical JSON lines in the order of the calls."""
    ordered = sorted(answers, key=lambda answer: answer.call.asked)
    lines = (canonical_json(record(answer, models[answer.call.side])) for answer in ordered)
    return b"".join(line + b"\n" for line in lines)
