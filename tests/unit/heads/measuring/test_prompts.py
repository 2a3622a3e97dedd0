"""Files of prompts: what is read, and what is told of what cannot be."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import DocumentError, HeadsError
from modelyard.heads.measuring.prompts import read_prompts

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'][0] }} {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>a {% endif %}"
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "p.jsonl"


def user(text):
    return {"role": "user", "content": text}


def test_prompts_and_messages_are_read(file, tiny_base):
    tokenizer = tiny_base.tokenizer
    file.write_text('{"prompt": "the cat", "id": 3}\n\n{"prompt": "the owl"}\r\n')
    assert read_prompts(file, tokenizer) == [tokenizer.encode("the cat"), tokenizer.encode("the owl")]
    tokenizer.chat_template = TEMPLATE
    answered = [user("the cat"), {"role": "assistant", "content": "sleeps."}]
    lines = [{"prompt": "the cat"}, {"messages": [user("the cat")]}, {"messages": answered}]
    file.write_text("\n".join(map(json.dumps, lines)))
    expected = tokenizer.encode("<s>u the cat</s><s>a ", add_special_tokens=False)
    assert read_prompts(file, tokenizer) == [expected] * 3, "an answer that is there is made anew"


def test_only_ends_of_lines_end_lines(file, tiny_base):
    """U+2028 and others may stand in JSON as they are."""
    text = "the\u2028cat\x85sees\u2029"
    file.write_text(json.dumps({"prompt": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_prompts(file, tiny_base.tokenizer) == [tiny_base.tokenizer.encode(text)]


def test_faults_are_told_all_at_once_each_with_its_line(file, tiny_base):
    tiny_base.tokenizer.chat_template = TEMPLATE
    lines = [
        '{"prompt": "fine"}', "{", "3", '{"prompt": ""}', '{"prompt": 4}', '{"messages": []}',
        '{"messages": [{"role": "user"}]}', '{"messages": [{"role": "assistant", "content": "alone"}]}',
    ]  # fmt: skip
    file.write_text("\n".join(lines))
    with pytest.raises(DocumentError) as caught:
        read_prompts(file, tiny_base.tokenizer)
    told = str(caught.value)
    assert "line 1:" not in told and all(f"line {number}" in told for number in range(2, 9))
    assert told.count('write {"prompt"} or {"messages"') == 7


def test_messages_without_a_template_are_told(file, tiny_base):
    file.write_text(json.dumps({"messages": [user("the cat")]}))
    with pytest.raises(DocumentError, match=r"line 1.*no chat template"):
        read_prompts(file, tiny_base.tokenizer)


def test_a_file_that_says_nothing_is_told(file, tiny_base):
    with pytest.raises(DocumentError, match=r"p.jsonl: cannot be read .*; give the path of a file"):
        read_prompts(file, tiny_base.tokenizer)
    file.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DocumentError, match=r"p.jsonl: is not UTF-8 text \(byte 12\)"):
        read_prompts(file, tiny_base.tokenizer)
    file.write_text("\n \n")
    with pytest.raises(HeadsError, match=r"p.jsonl: holds no prompt; write"):
        read_prompts(file, tiny_base.tokenizer)
