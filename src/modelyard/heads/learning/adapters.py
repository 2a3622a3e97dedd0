"""Low-rank adapters on a base (LoRA, arXiv 2106.09685), by the library PEFT: put on, switched off, merged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from modelyard.heads.base import Base


def add_adapters(model: Any, *, rank: int, alpha: int, seed: int) -> list[torch.nn.Parameter]:
    """Put adapters on all linear layers but the output projection; they begin by changing nothing."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    adapters = [each for each in model.parameters() if each.requires_grad]
    for each in adapters:  # the base's type may be too coarse for small steps
        each.data = each.data.float()
    return adapters


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


@contextmanager
def switched_off(model: Any) -> Iterator[None]:
    """The network without its adapters."""
    for _, layer in _layers(model):
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for _, layer in _layers(model):
            layer.enable_adapters(enabled=True)


def write_merged(base: Base, folder: Path) -> None:
    """Write the base with its adapters added to its weights, under their old names; it stays as it is."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in base.model.state_dict().items()
        if ".lora_" not in name
    }
    with torch.no_grad():
        for name, layer in _layers(base.model):
            weight = layer.base_layer.weight
            added = weight.float() + layer.get_delta_weight("default").float()
            state[f"{name}.weight"] = added.to(weight.dtype)
    base.model.save_pretrained(part, state_dict=state)
    base.tokenizer.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
