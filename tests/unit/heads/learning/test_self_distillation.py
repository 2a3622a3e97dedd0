"""A base writes its own data: whole lines, the same after a kill, and nothing that is of no use."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from modelyard.core.errors import DocumentError, HeadsError
from modelyard.heads.learning.self_distillation import DistilSettings, self_distil
from modelyard.heads.learning.topics import CHAT, CODE, DEFAULT_TOPICS, PROSE, Topic, read_topics
from modelyard.heads.turns import Turns, vocabulary_digest

TOPICS = (Topic(kind="cats", opening="the cat "), Topic(kind="dogs", opening="the dog hears the "))
FEW = DistilSettings(
    answer_tokens=100,
    batch=4,
    most_prompt_tokens=16,
    most_answer_tokens=24,
    prompt_temperature=1.5,
    prompt_min_p=0.01,
    answer_temperature=0.7,
)
TEMPLATE = (
    "{% for m in messages %}{{ '<s>' if m.role == 'user' else '' }}{{ m.content }}{{ '</s>' }}{% endfor %}"
)


class StoppedError(Exception):
    """Stands for a kill: nothing is tidied up."""


def test_what_is_written_is_tokens_of_the_base_with_the_place_from_which_they_are_its_answer(
    tiny_base, tmp_path
):
    told = []
    standing = self_distil(tiny_base, tmp_path / "own.jsonl", FEW, topics=TOPICS, observe=told.append)
    rows = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    assert len(rows) == standing.conversations == len({row["prompt"] for row in rows})
    assert standing.answer_tokens == sum(len(row["tokens"]) - row["learn_from"] for row in rows) >= 100
    assert {row["kind"] for row in rows} == {"cats", "dogs"}
    ends = tiny_base.end_tokens
    for row in rows:
        assert row["prompt"].startswith(("the cat", "the dog hears the"))
        assert row["tokens"][: row["learn_from"]] == Turns(tiny_base.tokenizer).asked(row["prompt"])
        answer = row["tokens"][row["learn_from"] :]
        assert row["ended"] == (answer[-1] in ends)
        assert not ends & set(answer[:-1]), "nothing is kept after the end"
        assert row["vocabulary"] == vocabulary_digest(tiny_base.tokenizer)
    assert [each.batches for each in told] == list(range(standing.batches + 1))


def test_a_run_that_was_cut_short_writes_the_same_bytes(tiny_base, tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    self_distil(tiny_base, whole, FEW, topics=TOPICS)

    def stop_after_one(standing):
        if standing.batches == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        self_distil(tiny_base, cut, FEW, topics=TOPICS, observe=stop_after_one)
    with cut.open("ab") as file:
        file.write(b'{"a batch that nobody recorded": 1}\n{"torn')
    self_distil(tiny_base, cut, FEW, topics=TOPICS)
    assert cut.read_bytes() == whole.read_bytes()


def test_more_can_be_asked_for_and_enough_is_left_alone(tiny_base, tmp_path):
    path = tmp_path / "own.jsonl"
    first = self_distil(tiny_base, path, FEW, topics=TOPICS)
    written = path.read_bytes()
    assert self_distil(tiny_base, path, FEW, topics=TOPICS) == first
    more = DistilSettings(**{**_fields(FEW), "answer_tokens": first.answer_tokens + 1})
    assert self_distil(tiny_base, path, more, topics=TOPICS).batches == first.batches + 1
    assert path.read_bytes().startswith(written)


@pytest.mark.parametrize("change", [{"seed": 1}, {"answer_temperature": 0.0}])
def test_a_file_of_other_settings_is_refused(tiny_base, tmp_path, change):
    self_distil(tiny_base, tmp_path / "own.jsonl", FEW, topics=TOPICS)
    other = DistilSettings(**{**_fields(FEW), **change})
    with pytest.raises(HeadsError, match="other settings; give a path that is free"):
        self_distil(tiny_base, tmp_path / "own.jsonl", other, topics=TOPICS)


def test_a_file_that_is_not_ours_is_left_as_it_is(tiny_base, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("mine\n")
    with pytest.raises(HeadsError, match="is there already"):
        self_distil(tiny_base, path, FEW, topics=TOPICS)
    assert path.read_text() == "mine\n"


def test_a_base_that_writes_nothing_of_use_is_told(tiny_base, tmp_path):
    settings = DistilSettings(answer_tokens=10, batch=2, most_prompt_tokens=1, most_answer_tokens=4)
    with pytest.raises(HeadsError, match=r"16 requests .* none was of use \(request short: 2\); give topics"):
        self_distil(tiny_base, tmp_path / "own.jsonl", settings, topics=[Topic(opening="a")])


def test_with_a_chat_template_the_model_ends_the_users_turn_itself(tiny_base, tmp_path):
    tiny_base.tokenizer.chat_template = TEMPLATE
    short = DistilSettings(**{**_fields(FEW), "most_prompt_tokens": 13})
    standing = self_distil(tiny_base, tmp_path / "own.jsonl", short, topics=TOPICS)
    rows = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    start, end = tiny_base.tokenizer.bos_token_id, tiny_base.tokenizer.eos_token_id
    for row in rows:
        asked = row["tokens"][: row["learn_from"]]
        assert (asked[0], asked[-1]) == (start, end)
        assert tiny_base.tokenizer.decode(asked[1:-1]) == row["prompt"]
    assert standing.dropped.get("request without end", 0) > 0, "thirteen tokens do not suffice for all"


def test_the_packaged_topics_ask_for_code_chat_and_prose_alike():
    assert len(set(Counter(topic.kind for topic in DEFAULT_TOPICS).values())) == 1
    assert {topic.kind for topic in DEFAULT_TOPICS} == {CODE, CHAT, PROSE}
    assert len(set(DEFAULT_TOPICS)) == len(DEFAULT_TOPICS)


def test_topics_are_read_from_a_file(tmp_path):
    path = tmp_path / "topics.jsonl"
    path.write_text('{"opening": "Write a haiku"}\n\n{"system": "You are a cook.", "kind": "food"}\n')
    assert read_topics(path) == [Topic(opening="Write a haiku"), Topic(system="You are a cook.", kind="food")]


def test_only_ends_of_lines_end_a_topic(tmp_path):
    """U+2028 may stand in JSON as it is."""
    path = tmp_path / "topics.jsonl"
    path.write_text('\ufeff{"opening": "the cat\u2028sees"}\r\n\n{"opening": "the owl"}', encoding="utf-8")
    assert [each.opening for each in read_topics(path)] == ["the cat\u2028sees", "the owl"]


def test_every_fault_of_a_file_of_topics_is_told_with_its_line(tmp_path):
    path = tmp_path / "topics.jsonl"
    path.write_text('{"opening": 3}\nnot json\n{"kind": "x"}\n{"opening": "a", "opneing": "b"}\n')
    with pytest.raises(DocumentError) as caught:
        read_topics(path)
    told = str(caught.value)
    for words in ("line 1.opening", "line 2", "line 3", "line 4.opneing", "did you mean opening?"):
        assert words in told


def _fields(settings):
    return {name: getattr(settings, name) for name in type(settings).__dataclass_fields__}
