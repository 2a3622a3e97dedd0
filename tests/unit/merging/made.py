"""Small checkpoints for tests, written with the safetensors library, and read back with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from modelyard.merging.recipe import ModelRef, Source


def llama(seed, *, layers=3, width=8, vocabulary=12, spread=0.02, around=None, head=True):
    """The tensors of a small Llama in float32, random, or near another's."""
    chance = np.random.default_rng(seed)
    shapes = {"model.embed_tokens.weight": (vocabulary, width)}
    for i in range(layers):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "self_attn.q_proj.weight": (width, width),
            layer + "mlp.down_proj.weight": (width, 2 * width),
            layer + "input_layernorm.weight": (width,),
        }
    shapes["model.norm.weight"] = (width,)
    if head:
        shapes["lm_head.weight"] = (vocabulary, width)
    return {
        name: (
            (0 if around is None else around[name]) + spread * chance.standard_normal(shape, np.float32)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


def written(folder: Path, tensors, *, config=None, shards=1) -> Path:
    """A checkpoint folder with these tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = len({n.split(".")[2] for n in tensors if n.startswith("model.layers.")})
    config = {"model_type": "llama", "num_hidden_layers": layers, **(config or {})}
    if "model.embed_tokens.weight" in tensors:
        config.setdefault("vocab_size", int(tensors["model.embed_tokens.weight"].shape[0]))
    (folder / "config.json").write_text(json.dumps(config))
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    places = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        own = names[number::shards]
        save_file({n: tensors[n] for n in own}, folder / file)
        places |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def loaded(folder: Path):
    """All tensors of a checkpoint folder, by the safetensors library."""
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def ref(path) -> ModelRef:
    return ModelRef(path=str(path))


def source(path, layers=None, **settings) -> Source:
    return Source(model=ref(path), layers=layers, settings=settings)
