"""A real checkpoint, tiny and made here, asked through transformers."""

from __future__ import annotations

import shutil

import pytest

from modelyard.core.errors import EngineError
from modelyard.core.faults import Faults, Section
from modelyard.results.engines import Question
from modelyard.results.engines.transformers import TransformersSettings


def read(folder, **entry):
    faults = Faults(file="f")
    settings = TransformersSettings.read(
        Section({"name": "m", "checkpoint": "tiny", **entry}, faults=faults), folder
    )
    return settings, faults.found


@pytest.fixture(scope="module")
def engine(tiny_checkpoint):
    settings, _ = read(tiny_checkpoint.parent, checkpoint=tiny_checkpoint.name, options={"max_new_tokens": 5})
    engine = settings.open({})
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def parts(tiny_checkpoint):
    """The tokenizer and the model themselves."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_checkpoint), AutoModelForCausalLM.from_pretrained(
        tiny_checkpoint
    )


def next_logits(model, ids):
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0, -1]


def test_it_continues_greedily_and_counts_tokens(engine, parts):
    tokenizer, model = parts
    ids = tokenizer("one two three")["input_ids"]
    made = list(ids)
    for _ in range(5):
        made.append(int(next_logits(model, made).argmax()))
    question = Question(example_id="q", prompt="one two three")
    reply = engine.ask(question, "k")
    assert reply.text == tokenizer.decode(made[3:], skip_special_tokens=True)
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 5) and reply.latency_s > 0
    assert engine.ask(question, "other").text == reply.text


def test_the_likeliest_letter_is_that_of_the_logits(engine, parts):
    tokenizer, model = parts
    for text in ("one two", "three one", "two two two one"):
        logits_v = next_logits(model, tokenizer(text)["input_ids"])
        best = max("AB", key=lambda letter: logits_v[tokenizer.convert_tokens_to_ids(letter)].item())
        assert engine.ask(Question(example_id="q", prompt=text, letters=("A", "B")), "k").text == best


def test_a_fault_of_one_question_is_in_its_reply(tiny_checkpoint):
    settings, _ = read(
        tiny_checkpoint.parent, checkpoint=tiny_checkpoint.name, options={"max_new_tokens": -1}
    )
    reply = settings.open({}).ask(Question(example_id="q", prompt="one"), "k")
    assert reply.text is None and "max_new_tokens" in reply.error and not reply.again


def test_the_identity_is_the_content_not_the_place(tiny_checkpoint, tmp_path):
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    first, _ = read(tiny_checkpoint.parent, checkpoint=tiny_checkpoint.name)
    second, _ = read(tmp_path)
    assert first.identity == second.identity
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert read(tmp_path)[0].identity != first.identity


def test_what_is_no_checkpoint_is_a_fault_and_a_broken_one_an_error(tiny_checkpoint, tmp_path):
    _, found = read(tmp_path)
    assert [(fault.key, fault.problem) for fault in found] == [
        ("checkpoint", "is no folder with a config.json")
    ]
    shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"\0" * 20)
    settings, _ = read(tmp_path)
    with pytest.raises(EngineError, match="tiny: cannot be loaded"):
        settings.open({})
