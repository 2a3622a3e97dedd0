"""Events go on as they came, but for the usage that the gateway asked for; and what they tell is found."""

from __future__ import annotations

from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.exchanges.events import LONGEST_EVENT_BYTES, EventStream

USAGE = {"prompt_tokens": 3, "completion_tokens": 4}
HIDDEN = orjson.dumps({"choices": [], "usage": USAGE})
words = st.text(max_size=8)


def delta(text: str) -> bytes:
    return orjson.dumps({"choices": [{"delta": {"content": text}, "finish_reason": None}], "usage": None})


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, bytes, str]:
    """A stream, what of it the client may see, and its text."""
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    sent, seen, texts = b"", b"", ""
    for kind in draw(st.lists(st.sampled_from(["text", "usage", "comment", "named", "lines"]), max_size=8)):
        text = draw(words)
        event = {
            "text": b"data: " + delta(text) + end + end,
            "usage": b"data: " + HIDDEN + end + end,
            "comment": b": waiting" + end + end,
            "named": b"id: 1" + end + b"event: message" + end + b"data:" + delta(text) + end + end,
            "lines": b'data: {"choices": [],' + end + b'data: "other": "usage"}' + end + end,
        }[kind]
        texts += text if kind in ("text", "named") else ""
        sent += event
        seen += b"" if kind == "usage" else event
    last = b"data: [DONE]" + end + end
    return sent + last, seen + last, texts


@given(stream=streams(), cuts=st.lists(st.integers(0, 1500), max_size=8), hide=st.booleans())
def test_what_is_passed_on_is_what_came_but_the_hidden_usage(
    stream: tuple[bytes, bytes, str], cuts: list[int], *, hide: bool
) -> None:
    sent, seen, text = stream
    ends = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    events = EventStream(hide_usage=hide)
    passed = b"".join(events.feed(sent[a:b]) for a, b in pairwise(ends)) + events.rest()
    assert passed == (seen if hide else sent)
    assert events.text() == text
    assert events.done
    assert events.whole
    assert events.usage == (USAGE if HIDDEN in sent else None)


def test_usage_that_stands_with_choices_is_the_clients_too() -> None:
    events = EventStream(hide_usage=True)
    event = b"data: " + orjson.dumps({"choices": [{"finish_reason": "stop"}], "usage": USAGE}) + b"\n\n"
    assert events.feed(event) == event
    assert (events.usage, events.finished, events.whole) == (USAGE, True, True)


@pytest.mark.parametrize("error", [{"message": "no"}, "no", ["no"]])
def test_an_error_in_whatever_form_makes_the_answer_no_whole_one(error: object) -> None:
    events = EventStream(hide_usage=True)
    events.feed(b"data: " + orjson.dumps({"error": error}) + b"\n\ndata: [DONE]\n\n")
    assert events.error == error
    assert not events.whole


def test_an_error_that_is_null_is_none() -> None:
    events = EventStream(hide_usage=True)
    events.feed(b'data: {"choices": [], "error": null}\n\ndata: [DONE]\n\n')
    assert events.whole


@pytest.mark.parametrize("text", ["data: [DONE]", "x\ndata: [DONE]\n\n", '"finish_reason": "stop"'])
def test_text_that_looks_like_the_end_is_none(text: str) -> None:
    events = EventStream(hide_usage=True)
    events.feed(b"data: " + delta(text) + b"\n\n")
    assert not events.whole
    assert events.text() == text


def test_an_event_without_its_blank_line_comes_at_the_end() -> None:
    events = EventStream(hide_usage=True)
    assert events.feed(b"data: [DONE]") == b""
    assert not events.done
    assert events.rest() == b"data: [DONE]"
    assert events.done


def test_an_event_that_does_not_end_is_given_up() -> None:
    events = EventStream(hide_usage=True)
    with pytest.raises(OverflowError, match="over"):
        for _ in range(20):
            events.feed(b"x" * (LONGEST_EVENT_BYTES // 10))


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_any_bytes_go_on_as_they_are(data: bytes, cut: int) -> None:
    events = EventStream(hide_usage=True)
    passed = events.feed(data[:cut]) + events.feed(data[cut:]) + events.rest()
    assert data.startswith(passed)
    assert not data[len(passed) :].strip()


def test_several_answers_are_whole_when_each_has_said_why_it_ended():
    events = EventStream(hide_usage=False, choices=2)
    events.feed(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
    assert not events.whole
    events.feed(b'data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}\n\n')
    assert events.whole
