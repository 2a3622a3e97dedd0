"""Asking models their questions: several at a time, with pace, retries and a budget for them.

A question that fails for good has no answer, and that is a result. A model that answers nothing at all is
not a bad model but an unreachable one: then asking ends with an error.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from modelyard.core.errors import EngineError
from modelyard.core.failpoints import failpoint
from modelyard.core.redaction import without
from modelyard.evaluation.answer_store import AnswerStore
from modelyard.evaluation.pool import Manners
from modelyard.results.engines import Engine, Question, Reply

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
#: Retries that are allowed in all: so many, or this share of the questions where that is more.
_LEAST_RETRIES, _RETRIED_SHARE = 20, 0.2
#: So many questions in a row without an answer end the asking.
_LEAST_TRUST = 5
_LOOK_S = 0.05
_LONGEST_PACE_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What asking needs beside the questions."""

    engine: Engine
    store: AnswerStore
    manners: Manners
    # Tells why all shall stop; empty while nothing does.
    stop: Callable[[], str] = lambda: ""
    # Told of each reply, in the thread that asked.
    told: Callable[[str, Reply], None] = lambda _key, _reply: None
    # Keys that failed when they were asked last; that they fail again says nothing of the model.
    failed_before: frozenset[str] = frozenset()
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    # Values of secrets that a model may have seen, and that no answer may carry into a file.
    hidden: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Questions that are asked in their order, so many at a time; each by the asker of its model."""

    tasks: Sequence[tuple[Asker, str, Question]]
    threads: int


def ask_all(questions: Mapping[str, Question], conversation: Conversation) -> None:
    """Ask each question, by its key, until every one has a reply or a stop is asked for.

    A stop waits for the questions that are under way: they are paid for.

    Raises:
        EngineError: The model cannot be asked at all, or stopped answering.
    """
    asker = Asker(conversation, len(questions))
    tasks = [(asker, key, question) for key, question in questions.items()]
    ask_lanes([Lane(tasks=tasks, threads=conversation.manners.parallel)], conversation.stop)


def ask_lanes(lanes: Sequence[Lane], stop: Callable[[], str]) -> None:
    """As `ask_all`, for several lanes at the same time."""
    askers = {asker for lane in lanes for asker, _, _ in lane.tasks}
    threads = [min(lane.threads, len(lane.tasks)) for lane in lanes]
    with ThreadPoolExecutor(max(1, sum(threads)), thread_name_prefix="ask") as pool:
        left = set[Future[None]]()
        for lane, count in zip(lanes, threads, strict=True):
            queue = _Queue(lane.tasks)
            left |= {pool.submit(queue.work_off) for _ in range(count)}
        try:
            while left:
                done, left = wait(left, timeout=_LOOK_S, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if stop():
                    break
        finally:
            if left:
                for asker in askers:
                    asker.halted.set()
            pool.shutdown(wait=True)


class _Queue:
    """What the threads of one lane share."""

    def __init__(self, tasks: Sequence[tuple[Asker, str, Question]]) -> None:
        self._left, self._lock = iter(tasks), threading.Lock()

    def work_off(self) -> None:
        """Ask one question after the other until none is left."""
        while True:
            with self._lock:
                following = next(self._left, None)
            if following is None or following[0].halted.is_set():
                return
            asker, key, question = following
            asker.ask(key, question)


class Asker:
    """Asks one model; any number of threads may share it."""

    def __init__(self, conversation: Conversation, questions: int) -> None:
        """`questions` is how many will be asked in all: the budget of retries goes with it."""
        self._told = conversation
        self._lock = threading.Lock()
        self._retries = max(_LEAST_RETRIES, int(_RETRIED_SHARE * questions))
        self._trust = max(_LEAST_TRUST, conversation.manners.parallel)
        self._failed_in_a_row: list[str] = []
        self._next_start = 0.0
        self.halted = threading.Event()

    @property
    def failed_in_a_row(self) -> tuple[str, ...]:
        """The keys of the last questions, when none of them had an answer."""
        return tuple(self._failed_in_a_row)

    def ask(self, key: str, question: Question) -> None:
        """Ask one question until it has a reply that counts, and keep that."""
        tries = 0
        while not self.halted.is_set():
            self._wait_for_turn()
            if self.halted.is_set():
                return
            self._told.store.asked(key)
            failpoint("evaluate.after_asked")
            try:
                reply = _storable(self._told.engine.ask(question, key), self._told.hidden)
            except EngineError:
                self._told.store.heard(key)
                raise
            failpoint("evaluate.after_reply")
            if reply.again and tries < self._told.manners.retries and self._may_retry():
                self._told.store.heard(key)
                self._leave_alone(reply, tries)
                tries += 1
                continue
            self._told.store.put(key, reply)
            failpoint("evaluate.after_stored")
            self._told.told(key, reply)
            if not (reply.again and key in self._told.failed_before):
                self._watch(key, reply)
            return

    def _wait_for_turn(self) -> None:
        rate = self._told.manners.requests_per_minute
        with self._lock:
            start = max(self._next_start, time.monotonic())
            self._next_start = start + (min(60.0 / rate, _LONGEST_PACE_S) if rate else 0.0)
        self.halted.wait(max(0.0, start - time.monotonic()))

    def _may_retry(self) -> bool:
        with self._lock:
            self._retries -= 1
            return self._retries >= 0

    def _leave_alone(self, reply: Reply, tries: int) -> None:
        """Wait before the next try: all threads where the server says how long, else this one for a while."""
        if reply.wait_s:
            with self._lock:
                self._next_start = max(
                    self._next_start, time.monotonic() + min(reply.wait_s, _LONGEST_WAIT_S)
                )
            return
        with self._lock:
            jitter = self._told.chance.uniform(0.5, 1.0)
        self.halted.wait(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0**tries) * jitter)

    def _watch(self, key: str, reply: Reply) -> None:
        with self._lock:
            self._failed_in_a_row = [*self._failed_in_a_row, key] if reply.again else []
            if len(self._failed_in_a_row) < self._trust:
                return
        self.halted.set()
        raise EngineError(
            f"{len(self._failed_in_a_row)} questions in a row have no answer, the last for this reason: "
            f"{reply.error}; see that the model is there, and go on with the same command"
        )


def _storable(reply: Reply, hidden: Sequence[str]) -> Reply:
    """Without halves of characters, which some models say and no file can hold, and without secrets."""
    text, error = reply.text, reply.error
    if text is not None:
        text = without(text.encode("utf-8", "replace").decode(), hidden)
    return replace(reply, text=text, error=without(error.encode("utf-8", "replace").decode(), hidden))
