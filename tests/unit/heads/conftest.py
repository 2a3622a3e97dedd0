"""A base model small enough to train in a test, on a language in which the next words can be foretold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modelyard.heads.base import Base
from modelyard.heads.config import HeadsConfig
from modelyard.heads.learning.data import TokenSequence, corpus_of
from modelyard.heads.learning.hidden_states import cache_states
from modelyard.heads.learning.training import TrainingSettings, train
from modelyard.heads.model import Heads, load_heads
from modelyard.testing.tiny_language import make_tiny_base, tiny_sentences


@pytest.fixture(scope="session")
def tiny_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a tokenizer of at most 96 tokens and no chat template, trained a little."""
    folder = tmp_path_factory.mktemp("tiny_base")
    make_tiny_base(folder)
    return folder


@pytest.fixture
def tiny_base(tiny_base_folder: Path) -> Base:
    """The tiny base, opened in float32."""
    return Base.open(tiny_base_folder)


@pytest.fixture(scope="session")
def tiny_heads_folder(tiny_base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four heads trained on the tiny base, by which most of what follows is foretold."""
    base = Base.open(tiny_base_folder)
    sequences = [
        TokenSequence(tokens=np.array(ids, np.int32), learned=np.arange(len(ids)) >= 1)
        for ids in sentences_as_tokens(base, count=160, seed=9)
    ]
    states = cache_states(base, corpus_of(sequences, place="made"), tmp_path_factory.mktemp("states"))
    folder = tmp_path_factory.mktemp("tiny_heads")
    settings = TrainingSettings(
        heads=4, shortlist=60, epochs=4, learning_rate=0.01, batch=256, measurements=1
    )
    train(states, folder, settings, clock=lambda: 0.0)
    record = json.loads((folder / "heads.json").read_text())
    (folder / "heads.json").write_text(json.dumps({**record, "base_name": str(tiny_base_folder)}))
    return folder


@pytest.fixture
def tiny_heads(tiny_heads_folder: Path, tiny_base: Base) -> Heads:
    """Those heads on the tiny base."""
    return load_heads(tiny_heads_folder, tiny_base)


@pytest.fixture
def wild_heads(tiny_base: Base) -> Callable[..., Heads]:
    """A function that draws heads on the tiny base at random: what they draft is as good as any."""

    def draw(*, seed: int, heads: int = 4) -> Heads:
        config = HeadsConfig(
            heads=heads, layers=1, hidden_size=tiny_base.hidden_size, vocab_size=tiny_base.vocab_size,
            projection="shared", drafted=tiny_base.vocab_size, base=tiny_base.fingerprint,
        )  # fmt: skip
        made, chance = Heads(config, tiny_base.projection_vh), torch.Generator().manual_seed(seed)
        for parameter in made.parameters():
            parameter.data.normal_(generator=chance)
        return made.eval().requires_grad_(False)

    return draw


@pytest.fixture
def tiny_prompts(tiny_base: Base) -> list[list[int]]:
    """Beginnings of sentences, of all lengths from one token on, and two that are no language at all."""
    told = sentences_as_tokens(tiny_base, count=10, seed=77)
    return [ids[: 1 + 2 * number] for number, ids in enumerate(told)] + [[7], [50, 3, 9, 60, 4, 4, 4, 4, 31]]


def sentences_as_tokens(base: Base, *, count: int, seed: int) -> list[list[int]]:
    """Whole sentences of the tiny language, from the first token to the end token."""
    return [[1, *base.tokenizer.encode(each), 2] for each in tiny_sentences(count, seed=seed)]
