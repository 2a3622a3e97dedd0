"""Every form that mergekit's documentation describes is not only read: it plans, and it merges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.unit.merging.made import llama, loaded, written

from modelyard.merging.chain import plan_chain, run_chain
from modelyard.merging.config import read_recipes
from modelyard.merging.engine import MergeOptions
from modelyard.merging.models import references
from modelyard.merging.recipe import Recipe

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.yml"))
TOKENS = ["<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]


def write_tokenizer(folder: Path, extra: list[str]) -> int:
    """A small tokenizer; how many tokens it has."""
    vocabulary = {token: i for i, token in enumerate(TOKENS)}
    added = [
        {"id": len(vocabulary) + i, "content": t, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for i, t in enumerate(extra)
    ]  # fmt: skip
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": added, "model": model})
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return len(vocabulary) + len(extra)


def write_model(folder: Path, *, layers: int, seed: int, modular: bool) -> None:
    """A model that is large enough in layers, with a tokenizer of its own."""
    folder.mkdir(parents=True)
    extra = ["<|im_start|>", "<|im_end|>"] if folder.name == "chatml" else []
    tensors = llama(seed, layers=layers, width=4, vocabulary=write_tokenizer(folder, extra))
    if modular:
        layered = {n.removeprefix("model."): t for n, t in tensors.items() if ".layers." in n}
        tensors = {
            f"{part}.{n}": t for part in ("language_model", "vision_tower") for n, t in layered.items()
        }
    written(folder, tensors)


def write_adapter(folder: Path, rank: int = 2) -> None:
    """A PEFT adapter of one projection of the first layer."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    chance = np.random.default_rng(0)
    pair = {
        f"{stem}.lora_A.weight": chance.standard_normal((rank, 4)).astype(np.float32),
        f"{stem}.lora_B.weight": chance.standard_normal((4, rank)).astype(np.float32),
    }
    save_file(pair, folder / "adapter_model.safetensors")


def write_world(recipes: list[Recipe], folder: Path) -> None:
    """Everything that the recipes name."""
    stages = {recipe.name for recipe in recipes}
    layers = max(
        (s.layers[1] for r in recipes for part in r.slices for s in part.sources if s.layers), default=12
    )
    named = {ref for recipe in recipes for _, ref in references(recipe) if ref.path not in stages}
    for seed, path in enumerate(sorted({ref.path for ref in named})):
        write_model(folder / path, layers=layers, seed=seed, modular=any(r.modules for r in recipes))
    for adapter in {ref.lora for ref in named if ref.lora}:
        write_adapter(folder / adapter)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_plans_and_merges(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes = read_recipes(example)
    write_world(recipes, tmp_path)
    planned = plan_chain(recipes, file=example.name, folder=tmp_path)
    plan, result = run_chain(recipes, tmp_path / "out", MergeOptions(), file=example.name, folder=tmp_path)
    assert len(planned.tasks) == result.tensors
    out = (
        loaded(tmp_path / "out") if example.stem not in {"linear", "slerp"} else None
    )  # numpy has no bfloat16
    if out is not None:
        assert {name: value.shape for name, value in out.items()} == {t.name: t.shape for t in plan.tasks}
        assert all(np.isfinite(value).all() for value in out.values())
