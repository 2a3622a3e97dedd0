"""A language of a few words and a base model of it: small enough to be made in a test, and foretellable."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

_SUBJECTS = ("cat", "dog", "owl")
_VERBS = {"cat": "sees", "dog": "hears", "owl": "likes"}
_OBJECTS = ("mouse", "bird", "fish", "tree")
_STEPS, _BATCH, _LENGTH = 120, 16, 48


def tiny_sentences(count: int, *, seed: int) -> list[str]:
    """Sentences of which some words follow from others and some are free."""
    chance = random.Random(seed)
    return [
        f"the {subject} {_VERBS[subject]} the {chance.choice(_OBJECTS)} and the {subject} sleeps."
        for subject in chance.choices(_SUBJECTS, k=count)
    ]


def make_tiny_base(folder: Path) -> None:
    """Write a Llama of two layers with a tokenizer of at most 96 tokens and no chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(shape)
        _train(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, trainers
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE(unk_token="<unk>"))
    letters.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(
        vocab_size=96, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], max_token_length=5,
        show_progress=False, initial_alphabet=[chr(code) for code in range(32, 127) if chr(code).islower()],
    )  # fmt: skip
    letters.train_from_iterator(tiny_sentences(200, seed=1), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=letters, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def _train(model: Any, tokenizer: Any) -> None:
    text = [
        token
        for sentence in tiny_sentences(600, seed=2)
        for token in (tokenizer.bos_token_id, *tokenizer.encode(sentence), tokenizer.eos_token_id)
    ]
    stream_n = torch.tensor(text)
    chance = torch.Generator().manual_seed(3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(_STEPS):
        starts_b = torch.randint(len(stream_n) - _LENGTH, (_BATCH,), generator=chance)
        ids_bn = torch.stack([stream_n[start : start + _LENGTH] for start in starts_b])
        optimiser.zero_grad()
        model(input_ids=ids_bn, labels=ids_bn).loss.backward()
        optimiser.step()
    model.eval()
