"""The engine of a model with heads: the contract of engines, and the answers of plain decoding."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import DocumentError, EngineError
from modelyard.core.faults import Faults, Section
from modelyard.heads.config import HeadsConfig
from modelyard.heads.engine import HeadsSettings
from modelyard.heads.model import Heads, save_heads
from modelyard.results.engines import Question, load_engine
from modelyard.results.engines.transformers import TransformersSettings
from modelyard.testing.engine_contract import EngineContract

PROMPT = "the owl likes"


@pytest.fixture
def heads_folder(tiny_base, tmp_path):
    """Heads that foretell what the base's own projection does."""
    config = HeadsConfig(
        heads=2, layers=1, hidden_size=tiny_base.hidden_size, vocab_size=tiny_base.vocab_size,
        projection="shared", drafted=tiny_base.vocab_size, base=tiny_base.fingerprint, base_name="tiny",
    )  # fmt: skip
    save_heads(Heads(config, tiny_base.projection_vh), tmp_path / "heads", {})
    return tmp_path / "heads"


def read(folder, **entry):
    """Settings from an entry of a pool."""
    faults = Faults(file="pool.yaml")
    made = HeadsSettings.read(Section(entry, faults=faults), folder)
    faults.raise_if_any()
    return made


@pytest.fixture
def settings(tiny_base_folder, heads_folder):
    return read(heads_folder.parent, base=str(tiny_base_folder), heads="heads", options={"max_new_tokens": 8})


class TestHeads(EngineContract):
    """With heads."""

    @pytest.fixture
    def settings(self, settings):
        return settings

    @pytest.fixture
    def question(self):
        return Question(example_id="q1", prompt=PROMPT)


def test_it_is_found_by_its_name():
    assert load_engine("heads") is HeadsSettings


def test_its_answers_are_those_of_transformers(settings, tiny_base_folder):
    entry = {"checkpoint": str(tiny_base_folder), "options": {"max_new_tokens": 8}}
    other = TransformersSettings.read(Section(entry, faults=Faults(file="f")), tiny_base_folder)
    ours, plain, theirs = (
        each.open({}) for each in (settings, read(settings.base, base=".", options=settings.options), other)
    )
    for prompt in (PROMPT, "the cat", "the dog hears the"):
        question = Question(example_id="q", prompt=prompt)
        answers = [each.ask(question, "k") for each in (ours, plain, theirs)]
        assert len({answer.text for answer in answers}) == 1
        assert len({answer.prompt_tokens for answer in answers}) == 1
    letters = Question(example_id="q", prompt=PROMPT, letters=("A", "B"))
    assert ours.ask(letters, "k").text == theirs.ask(letters, "k").text


def test_samples_are_drawn_anew_and_can_be_had_again(settings):
    warm = read(settings.base, base=".", options={"max_new_tokens": 12, "temperature": 1.5, "seed": 3}).open(
        {}
    )
    texts = [
        warm.ask(Question(example_id="q", prompt=PROMPT, sample=sample), "k").text
        for sample in (0, 1, 2, 3, 0)
    ]
    assert texts[0] == texts[4] and len(set(texts)) > 1


def test_what_is_too_long_is_an_answer_with_an_error(settings):
    engine = settings.open({})
    reply = engine.ask(Question(example_id="q", prompt="the cat sees " * 400), "k")
    assert reply.text is None and "shorten the prompt" in reply.error


def test_identity_follows_everything_that_changes_answers(settings, heads_folder, tmp_path):
    import shutil

    base = tmp_path / "base"
    shutil.copytree(settings.base, base)

    def identity(**more):
        return json.dumps(
            read(tmp_path, **{"base": "base", "heads": "heads", **more}).identity, sort_keys=True
        )

    first = identity()
    assert first == identity(device="cpu")
    said = {first, identity(dtype="bfloat16"), identity(options={"temperature": 0.5}), identity(heads=None)}
    (heads_folder / "tree.json").write_text('{"choices": [[0]]}')
    said.add(identity())
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ messages }}"}))
    said.add(identity())
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-2] ^= 0xFF
    (base / "model.safetensors").write_bytes(bytes(weights))
    said.add(identity())
    assert len(said) == 7


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"base": "nothing"}, "no folder with a config.json"),
        ({"heads": "nothing"}, "no folder with a heads.json"),
        ({"options": {"beams": 4}}, "beams"),
        ({"options": {"temperature": -1}}, "temperature"),
        ({"options": {"max_new_tokens": "many"}}, "options"),
        ({"dtype": "int8"}, "int8"),
    ],
)  # fmt: skip
def test_faults_of_an_entry_are_told(entry, message, settings):
    with pytest.raises(DocumentError, match=message):
        read(settings.heads.parent, **{"base": str(settings.base), "heads": "heads", **entry})


def test_heads_of_another_base_are_refused_when_it_is_opened(settings, heads_folder):
    record = json.loads((heads_folder / "heads.json").read_text())
    (heads_folder / "heads.json").write_text(json.dumps({**record, "base": "sha256:other"}))
    with pytest.raises(EngineError, match="belong to"):
        read(heads_folder.parent, base=str(settings.base), heads="heads").open({})
