"""The answers that are kept: what is asked, answered, in doubt; one holder at a time."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import EvaluationError
from modelyard.evaluation.answer_store import answer_key, open_store, peek
from modelyard.results.engines import Question, Reply

REPLY = Reply(text="forty-two é", prompt_tokens=3, completion_tokens=1, latency_s=0.5, cost_usd=0.1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers" / "m.sqlite"


def test_an_answer_is_kept_until_it_is_forgotten(path):
    with open_store(path) as store:
        store.asked("a")
        assert store.in_doubt() == {"a"} and store.answered() == set()
        store.put("a", REPLY)
    with open_store(path) as store:
        assert store.in_doubt() == set() and store.answered() == {"a"}
        assert store.replies(["a", "b"]) == {"a": REPLY}
        store.forget(["a", "b"])
        assert store.replies(["a"]) == {}
    assert peek(path) == set()


def test_a_failure_that_may_pass_is_kept_and_asked_again(path):
    with open_store(path) as store:
        store.asked("a")
        store.put("a", Reply(error="busy", again=True))
        assert store.answered() == set() and store.in_doubt() == set()
        assert store.replies(["a"])["a"].error == "busy"
        store.asked("a")  # its asker may die here: then what the model said before is still known
        assert store.in_doubt() == {"a"}
        store.put("a", REPLY)
        assert store.answered() == {"a"} == peek(path)


def test_one_process_at_a_time_asks_a_model(path):
    busy = pytest.raises(EvaluationError, match=r"m\.sqlite: another process asks this model now")
    with open_store(path), busy, open_store(path):
        pass
    with open_store(path):
        pass


def test_replies_of_another_file_are_taken_over(path, tmp_path):
    with open_store(tmp_path / "part.sqlite") as part:
        for key, reply in {"a": REPLY, "b": Reply(text="theirs"), "c": Reply(error="x", again=True)}.items():
            part.asked(key)
            part.put(key, reply)
        part.asked("d")
    with open_store(path) as store:
        store.asked("b")
        store.put("b", Reply(text="ours"))
        store.absorb(tmp_path / "part.sqlite")
        store.absorb(tmp_path / "part.sqlite")
        assert {key: reply.text for key, reply in store.replies("abcd").items()} == {
            "a": REPLY.text, "b": "ours", "c": None,
        }  # fmt: skip
        assert store.answered() == {"a", "b"} and store.failed() == {"c"} and store.in_doubt() == set()
        (tmp_path / "broken.sqlite").write_text("no database, but long enough to be looked at " * 20)
        with pytest.raises(EvaluationError, match=r"broken\.sqlite: .* move this file away"):
            store.absorb(tmp_path / "broken.sqlite")
        assert store.answered() == {"a", "b"}, "its own answers are well"


def test_a_file_of_another_version_or_of_something_else_is_refused(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(EvaluationError, match="version 7 where 1 is read"), open_store(path):
        pass
    path.write_text("this is not a database, but a long text in its place " * 20)
    with pytest.raises(EvaluationError, match="move the file away"), open_store(path):
        pass
    with pytest.raises(EvaluationError, match="move the file away"):
        peek(path)


def test_many_threads_may_keep_answers(path):
    def keep(number):
        store.asked(f"k{number}")
        store.put(f"k{number}", Reply(text=str(number)))

    with open_store(path) as store:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(keep, range(100)))
        assert {key: reply.text for key, reply in store.replies(f"k{i}" for i in range(100)).items()} == {
            f"k{i}": str(i) for i in range(100)
        }


_questions = st.builds(
    Question,
    example_id=st.text(max_size=3),
    prompt=st.text(max_size=3),
    messages=st.lists(st.tuples(st.text(max_size=2), st.text(max_size=2)), max_size=2).map(tuple),
    letters=st.lists(st.sampled_from("AB"), max_size=2).map(tuple),
    sample=st.integers(0, 2),
)


@given(_questions, _questions)
def test_an_address_is_what_was_asked_of_whom(one, two):
    same = one.content() == two.content()
    assert (answer_key({"m": 1}, one) == answer_key({"m": 1}, two)) is same
    assert answer_key({"m": 1}, one) != answer_key({"m": 2}, one)
