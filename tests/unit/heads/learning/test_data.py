"""Texts become tokens, and only what the model writes is learned."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import DocumentError, HeadsError
from modelyard.heads.learning.data import read_corpus
from modelyard.heads.turns import Turns, vocabulary_digest

#: Ends every message and, after an answer, adds a space that is the template's and not the model's.
TEMPLATE = (
    "{% for m in messages %}{% if m.role != 'assistant' %}<s>{{ m.content }}</s>"
    "{% else %}{{ m.content }}</s> {% endif %}{% endfor %}"
)


@pytest.fixture
def tokenizer(tiny_base):
    tiny_base.tokenizer.chat_template = TEMPLATE
    return tiny_base.tokenizer


def read(tmp_path, tokenizer, *lines, **told):
    path = tmp_path / "text.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return read_corpus(path, tokenizer, ends=frozenset({tokenizer.eos_token_id}), **told)


def split(tokenizer, sequence):
    """What is not learned, and what is, as text."""
    said = tokenizer.decode(sequence.tokens[sequence.learned])
    return tokenizer.decode(sequence.tokens[~sequence.learned]), said


def test_all_of_a_text_is_learned_and_its_end(tmp_path, tokenizer):
    (sequence,) = read(tmp_path, tokenizer, {"text": "the cat sleeps.", "id": 3}).sequences
    assert split(tokenizer, sequence) == ("", "the cat sleeps.</s>")


def test_of_a_prompt_and_a_completion_the_completion_is_learned(tmp_path, tokenizer):
    (sequence,) = read(tmp_path, tokenizer, {"prompt": "the cat", "completion": "sleeps."}).sequences
    assert split(tokenizer, sequence) == ("<s>the cat</s>", "sleeps.</s>")


def test_of_messages_every_answer_is_learned_with_its_end_and_nothing_after_it(tmp_path, tokenizer):
    talk = [("user", "the cat"), ("assistant", "sees"), ("user", "the dog"), ("assistant", "hears")]
    line = {"messages": [{"role": role, "content": content} for role, content in talk]}
    (sequence,) = read(tmp_path, tokenizer, line).sequences
    assert split(tokenizer, sequence) == ("<s>the cat</s> <s>the dog</s> ", "sees</s>hears</s>")
    # what comes before the first answer is exactly what the model is asked with
    asked = Turns(tokenizer).asked("the cat")
    assert sequence.tokens[: len(asked)].tolist() == asked


def test_tokens_are_taken_as_they_are(tmp_path, tokenizer):
    line = {"tokens": [5, 6, 7, 8], "learn_from": 2, "vocabulary": vocabulary_digest(tokenizer)}
    (sequence,) = read(tmp_path, tokenizer, line).sequences
    assert sequence.tokens.tolist() == [5, 6, 7, 8]
    assert sequence.learned.tolist() == [False, False, True, True]


def test_of_tokens_of_another_vocabulary_the_texts_are_taken(tmp_path, tokenizer):
    line = {"tokens": [5], "vocabulary": "other", "prompt": "the cat", "completion": "sleeps."}
    (sequence,) = read(tmp_path, tokenizer, line).sequences
    assert split(tokenizer, sequence)[1] == "sleeps.</s>"


def test_what_is_too_long_is_cut_and_told(tmp_path, tokenizer):
    corpus = read(tmp_path, tokenizer, {"tokens": [5] * 9}, {"tokens": [5] * 4}, most_tokens=6)
    assert ([len(each) for each in corpus.sequences], corpus.cut) == ([6, 4], 1)
    assert corpus.learned_tokens == 10


def test_the_digest_is_of_tokens_and_of_what_is_learned(tmp_path, tokenizer):
    lines = (
        [{"tokens": [5, 6, 7]}],
        [{"tokens": [5, 6, 7], "learn_from": 1}],
        [{"tokens": [5, 6]}, {"tokens": [7]}],
        [{"tokens": [5, 6, 8]}],
    )
    digests = [read(tmp_path, tokenizer, *each).digest for each in lines]
    assert len(set(digests)) == len(lines)
    assert read(tmp_path, tokenizer, *lines[0]).digest == digests[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("not json", ("line 2", "is not JSON")),
        ("[1]", ("line 2", "is not an object")),
        ({"txt": "a"}, ("line 2", "has nothing to learn from", 'write {"text"}')),
        ({"text": ""}, ("line 2.text", "is not a string with text")),
        ({"prompt": "a"}, ("line 2.completion", "write both texts")),
        ({"messages": [{"role": "user"}]}, ("line 2.messages", "is not a list of messages")),
        ({"messages": [{"role": "user", "content": "a"}]}, ("line 2.messages", "has no answer")),
        ({"tokens": [5, 100000]}, ("line 2.tokens", "is not a list of tokens of the base")),
        ({"tokens": [5, True]}, ("line 2.tokens", "is not a list of tokens of the base")),
        ({"tokens": [5], "learn_from": 2}, ("line 2.learn_from", "2", "use 0 to 1")),
        ({"tokens": [5], "vocabulary": "x"}, ("line 2", "another vocabulary", "write the data anew")),
    ],
)
def test_a_fault_names_file_line_value_and_remedy(tmp_path, tokenizer, line, words):
    with pytest.raises(DocumentError) as caught:
        read(tmp_path, tokenizer, {"text": "the cat"}, line)
    for each in ("text.jsonl", *words):
        assert each in str(caught.value)


def test_messages_without_a_chat_template_are_refused(tmp_path, tiny_base):
    line = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(DocumentError, match="no chat template; give text, or prompt and completion"):
        read(tmp_path, tiny_base.tokenizer, line)


def test_a_template_that_rewrites_what_was_said_is_refused(tmp_path, tokenizer):
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    line = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(DocumentError, match="alters what stands before message 2"):
        read(tmp_path, tokenizer, line)


def test_a_file_without_anything_to_learn_is_refused(tmp_path, tokenizer):
    with pytest.raises(HeadsError, match="holds nothing that a model writes"):
        read(tmp_path, tokenizer, {"tokens": [5, 6], "learn_from": 2})


def test_a_file_that_is_not_there_is_told(tmp_path, tokenizer):
    with pytest.raises(DocumentError, match="give the path of a file"):
        read_corpus(tmp_path / "none.jsonl", tokenizer, ends=frozenset())
