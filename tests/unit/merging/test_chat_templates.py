"""Chat templates: what each renders, which one is chosen, and how it is written."""

from __future__ import annotations

import json

import pytest
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from modelyard.core.errors import MergeError
from modelyard.merging.chat_templates import (
    CHAT_TEMPLATES,
    choose_template,
    read_tokenizer_config,
    write_chat_template,
)

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi {{ x }}"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]
INSTRUCTION = "Below is an instruction that describes a task. "
REQUEST = "Write a response that appropriately completes the request."
LLAMA = "<s>" + "".join(
    f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in TALK[:3]
)


def rendered(name, messages, *, prompt=False):
    """The text, by an environment with the settings that transformers uses, but strict on names."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.from_string(CHAT_TEMPLATES[name]).render(
        messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=prompt
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpaca", "<s>Be brief.\n\n### Instruction:\nHi {{ x }}\n\n### Response:\nHello.</s>"),
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {{ x }}<|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n",
        ),
        (
            "exaone",
            "[|system|]Be brief.[|endofturn|]\n[|user|]Hi {{ x }}\n[|assistant|]Hello.[|endofturn|]\n",
        ),
        ("llama3", LLAMA),
        ("mistral", "<s>[INST] Be brief.\n\nHi {{ x }} [/INST] Hello.</s>"),
    ],
)
def test_three_messages_are_rendered(name, expected):
    assert rendered(name, TALK[:3]) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpaca", f"<s>{INSTRUCTION}{REQUEST}\n\n### Instruction:\nBye\n\n### Response:\n"),
        ("chatml", "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"),
        ("exaone", "[|system|][|endofturn|]\n[|user|]Bye\n[|assistant|]"),
        (
            "llama3",
            "<s><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] Bye [/INST]"),
    ],
)
def test_an_answer_is_asked_for(name, expected):
    assert rendered(name, TALK[3:], prompt=True) == expected


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_a_talk_goes_on_where_its_beginning_ended(name):
    whole, beginning = rendered(name, TALK), rendered(name, TALK[:3])
    assert whole.startswith(beginning)
    # a system message counts once, even where it is put into a user's turn
    assert whole.count("Be brief.") == 1


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_no_message_is_no_error(name):
    assert isinstance(rendered(name, []), str)


def test_llama_s_messages_lose_the_space_around_them():
    text = "<s><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
    assert rendered("llama3", [{"role": "user", "content": " Bye\n"}]) == text


def test_names_and_jinja_are_taken_as_they_are():
    assert choose_template("chatml", []) is CHAT_TEMPLATES["chatml"]
    assert choose_template("{{ messages }}", []) == "{{ messages }}"
    with pytest.raises(
        MergeError, match=r"'chatmll' is neither a known name nor Jinja; did you mean chatml\?"
    ):
        choose_template("chatmll", [])
    with pytest.raises(
        MergeError, match="use one of auto, alpaca, chatml, exaone, llama3, mistral, or a Jinja"
    ):
        choose_template("vicuna-1.1", [])


def test_auto_is_what_most_models_have():
    x, y = {"chat_template": "{{ x }}"}, {"chat_template": "{{ y }}"}
    assert choose_template("auto", [x, y, y]) == "{{ y }}"
    assert choose_template("auto", [x, y, y, x]) == "{{ x }}"
    assert choose_template("auto", [{}, {}, {"chat_template": None}, y]) == "{{ y }}"
    assert choose_template("auto", [{}, {}]) is None


def test_auto_takes_the_default_of_several_templates():
    named = [{"name": "tool_use", "template": "{{ t }}"}, {"name": "default", "template": "{{ d }}"}]
    assert choose_template("auto", [{"chat_template": named}]) == "{{ d }}"
    assert choose_template("auto", [{"chat_template": named[:1]}]) is None


def test_writing_leaves_one_template_and_all_other_keys(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>", "chat_template": "old"}')
    (tmp_path / "chat_template.jinja").write_text("older")
    write_chat_template(tmp_path, "{{ é }}")
    assert json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")) == {
        "eos_token": "</s>",
        "chat_template": "{{ é }}",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer_config.json"]


def test_writing_makes_a_config_where_there_is_none(tmp_path):
    write_chat_template(tmp_path, "{{ x }}")
    assert read_tokenizer_config(tmp_path) == {"chat_template": "{{ x }}"}


def test_a_template_file_beside_the_config_is_read(tmp_path):
    assert read_tokenizer_config(tmp_path) == {}
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old", "a": 1}')
    (tmp_path / "chat_template.jinja").write_text("{{ new }}")
    assert read_tokenizer_config(tmp_path) == {"chat_template": "{{ new }}", "a": 1}


@pytest.mark.parametrize(("text", "told"), [("{", "cannot be read"), ("[]", "is not a mapping")])
def test_a_broken_config_is_told(tmp_path, text, told):
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(MergeError, match=told):
        write_chat_template(tmp_path, "{{ x }}")
    assert (tmp_path / "tokenizer_config.json").read_text() == text
