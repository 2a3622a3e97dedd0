"""Asking: retries, their budget, pace, the end of trust, and stopping."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from modelyard.core.errors import EngineError
from modelyard.evaluation.answer_store import open_store
from modelyard.evaluation.asking import Conversation, ask_all
from modelyard.evaluation.pool import Manners
from modelyard.results.engines import Question, Reply

BUSY = Reply(error="busy", again=True, wait_s=0.001)


@dataclass
class Scripted:
    """An engine that answers as a function of the key and of how often it was asked."""

    script: object
    asked: list[tuple[str, float]] = field(default_factory=list)
    lock: object = field(default_factory=threading.Lock)

    def request(self, question):
        return {}

    def ask(self, question, key):
        with self.lock:
            self.asked.append((key, time.monotonic()))
            times = sum(each == key for each, _ in self.asked)
        return self.script(key, times)

    def close(self):
        pass


@pytest.fixture
def ask(tmp_path):
    """Asks so many questions; gives the engine and the texts or errors that were kept."""

    def run(count, script, stop=lambda: "", failed_before=frozenset(), **manners):
        engine = Scripted(script)
        questions = {f"k{i}": Question(example_id=str(i), prompt=str(i)) for i in range(count)}
        with open_store(tmp_path / "a.sqlite") as store:
            talk = Conversation(
                engine=engine, store=store, manners=Manners(**manners), stop=stop, failed_before=failed_before
            )
            try:
                ask_all(questions, talk)
            finally:
                kept = {k: reply.text or reply.error for k, reply in store.replies(questions).items()}
        return engine, kept

    return run


def test_a_passing_failure_is_asked_again_and_a_lasting_one_is_not(ask):
    refused = Reply(error="too long")
    scripts = {"k0": lambda _n: Reply(text="yes"), "k1": lambda n: Reply(text="at last") if n == 3 else BUSY,
               "k2": lambda _n: refused}  # fmt: skip
    engine, kept = ask(3, lambda key, times: scripts[key](times), retries=4, parallel=1)
    assert kept == {"k0": "yes", "k1": "at last", "k2": "too long"}
    assert [sum(key == each for each, _ in engine.asked) for key in scripts] == [1, 3, 1]


def test_a_question_is_given_up_after_its_retries(ask):
    engine, kept = ask(2, lambda key, times: BUSY if key == "k0" else Reply(text="ok"), retries=2, parallel=1)
    assert kept == {"k0": "busy", "k1": "ok"}
    assert sum(key == "k0" for key, _ in engine.asked) == 3


def test_retries_have_a_budget_over_all_questions(ask):
    """Every second question fails for good: 100 of them, but no more than 40 retries in all."""
    engine, kept = ask(
        200, lambda key, times: BUSY if int(key[1:]) % 2 else Reply(text="ok"), retries=3, parallel=1
    )
    assert len(kept) == 200
    assert len(engine.asked) == 200 + 40


def test_a_model_that_answers_nothing_is_not_taken_for_a_bad_one(ask):
    with pytest.raises(EngineError, match=r"5 questions in a row have no answer, the last .* busy; see that"):
        ask(100, lambda key, times: BUSY, retries=0, parallel=2)


def test_questions_that_failed_before_say_nothing_of_the_model(ask):
    before = frozenset(f"k{i}" for i in range(30))
    _, kept = ask(30, lambda key, times: BUSY, retries=0, parallel=1, failed_before=before)
    assert len(kept) == 30


def test_half_a_character_is_kept_as_a_question_mark(ask):
    _, kept = ask(2, lambda key, times: Reply(text="a\ud800b") if key == "k0" else Reply(error="\udfff"))
    assert kept == {"k0": "a?b", "k1": "?"}


def test_answers_in_between_keep_the_trust(ask):
    _, kept = ask(
        60, lambda key, times: BUSY if int(key[1:]) % 4 else Reply(text="ok"), retries=0, parallel=1
    )
    assert len(kept) == 60


def test_what_concerns_all_questions_ends_the_asking(ask):
    def script(key, times):
        raise EngineError("no access")

    with pytest.raises(EngineError, match="no access"):
        ask(100, script, parallel=4)


def test_the_pace_is_kept_by_all_threads_together(ask):
    engine, _ = ask(6, lambda key, times: Reply(text="ok"), requests_per_minute=1200, parallel=6)
    starts = sorted(at for _, at in engine.asked)
    assert starts[-1] - starts[0] >= 0.15  # without a pace they start at once


def test_retry_after_holds_all_threads_back(ask):
    """The first question says how long to wait; nothing starts within that time once it was heard."""
    heard = []

    def script(key, times):
        if times == 1 and key == "k0":
            heard.append(time.monotonic())
            return Reply(error="limited", again=True, wait_s=0.3)
        time.sleep(0.02)
        return Reply(text="ok")

    engine, kept = ask(12, script, parallel=2)
    early = [at for _, at in engine.asked if 0.05 < at - heard[0] < 0.25]
    assert len(early) <= 1, "one thread may have been about to ask"
    assert len(kept) == 12


def test_a_stop_keeps_what_is_under_way_and_asks_no_more(ask):
    asked = []

    def script(key, times):
        asked.append(key)
        time.sleep(0.02)
        return Reply(text="ok")

    _, kept = ask(500, script, stop=lambda: "SIGINT" if len(asked) > 4 else "", parallel=2)
    assert set(kept) == set(asked) and len(asked) < 100
