"""What vLLM up to 0.32 loads (0.33 has no Medusa any more): `model.safetensors` and a config of its own.

Tensors have Medusa's names or `blocks.{k}.layers.{j}.weight`, `lm_heads.{k}.weight` and `lm_head.weight`. Its
traps: without hidden_size a width of 4096 is taken; biases are dropped in silence unless medusa_fc_bias is
set; keys of the config that hold "num" and "heads" (or "layers") overwrite one another; heads that share a
projection need original_lm_head and that projection in the file; and a shortlist (`token_map`), which its
code knows, is refused by its own loader as a weight that was not initialised. Only the likeliest token of
each head is drafted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.formats.assembling import Parts, assemble
from modelyard.heads.formats.files import (
    CONFIG,
    read_config,
    read_tensors,
    write_config,
    write_tensors,
)
from modelyard.heads.formats.layout import BaseFacts, Found, Layout, shortlist_dropped, whole_projections
from modelyard.heads.formats.medusa import medusa_parts, medusa_tensors
from modelyard.heads.model import Heads

_FILE = "model.safetensors"
_BLOCK = re.compile(r"blocks\.(\d+)\.layers\.(\d+)\.(weight|bias)")
_DEPTH = re.compile(r"(?:blocks\.\d+\.layers|\d+)\.(\d+)\.(?:linear\.)?(?:weight|bias)")
_OWN = re.compile(r"lm_heads\.(\d+)\.weight")
_SHARED, _MAP = "lm_head.weight", "token_map"


def _recognises(folder: Path, config: Mapping[str, Any]) -> bool:
    kinds = config.get("architectures")
    named = config.get("model_type") == "medusa" or (isinstance(kinds, list) and "MedusaModel" in kinds)
    return named and (folder / _FILE).is_file()


def _read(folder: Path, base: BaseFacts) -> Found:
    config, place = read_config(folder / CONFIG), str(folder / _FILE)
    tensors = read_tensors(folder / _FILE)
    token_map, shared_sh = tensors.pop(_MAP, None), tensors.pop(_SHARED, None)
    parts = medusa_parts(_renamed(tensors), config, place=place)
    if config.get("original_lm_head"):
        shared_sh = parts.projections.get(0) if shared_sh is None else shared_sh
        if shared_sh is None:
            raise HeadsError(f"{place}: original_lm_head is set and no projection is there; fetch it again")
        parts = replace(parts, projections=dict.fromkeys(range(_heads(parts)), shared_sh))
    parts = _with_map(parts, token_map)
    notes = []
    if parts.biases and not config.get("medusa_fc_bias"):
        notes.append(
            "vLLM drops these biases, for the config does not set medusa_fc_bias; they are kept here"
        )
    found = assemble(parts, base, place=place)
    return replace(found, notes=(*notes, *found.notes))


def _renamed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """vLLM's own names as Medusa's."""
    stripped = {name.removeprefix("medusa_heads."): tensor for name, tensor in tensors.items()}
    blocks = [name for name in stripped if _BLOCK.fullmatch(name) or ".linear." in name]
    layers = 1 + max((int(match[1]) for name in blocks if (match := _DEPTH.fullmatch(name))), default=-1)
    named = {}
    for name, tensor in stripped.items():
        block, own = _BLOCK.fullmatch(name), _OWN.fullmatch(name)
        if block:
            named[f"{block[1]}.{block[2]}.linear.{block[3]}"] = tensor
        elif own:
            named[f"{own[1]}.{layers}.weight"] = tensor
        else:
            named[name] = tensor
    return named


def _heads(parts: Parts) -> int:
    return 1 + max((k for k, _ in parts.weights), default=-1)


def _with_map(parts: Parts, token_map: torch.Tensor | None) -> Parts:
    """Rows of a whole vocabulary are cut to the shortlist, as vLLM does."""
    if token_map is None:
        return parts
    tokens = token_map.long()
    cut = {k: rows if len(rows) <= len(tokens) else rows[tokens] for k, rows in parts.projections.items()}
    return replace(parts, projections=cut, shortlist=tokens)


def _write(heads: Heads, folder: Path, base: BaseFacts) -> tuple[str, ...]:
    config, shape = _config(heads), heads.config
    notes = ["vLLM 0.32 is the last with Medusa, and drafts the likeliest token of each head alone"]
    if shape.projection == "shared":
        tensors = medusa_tensors(heads) | {_SHARED: base.projection_vh}
        config["original_lm_head"] = True
        notes += [shortlist_dropped(heads)] if shape.shortlisted else []
    else:
        projections, more = whole_projections(heads, base, layout="vllm")
        tensors = medusa_tensors(heads, projections)
        notes += more
    write_tensors(tensors, folder / _FILE)
    write_config(config, folder / CONFIG)
    return tuple(notes)


def _config(heads: Heads) -> dict[str, Any]:
    shape = heads.config
    return {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": shape.hidden_size,
        "vocab_size": shape.vocab_size,
        "truncated_vocab_size": shape.vocab_size,
        "num_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "medusa_fc_bias": True,
    }


LAYOUT = Layout(
    name="vllm",
    about="vLLM up to 0.32: model.safetensors, a config with sizes",
    recognises=_recognises,
    read=_read,
    write=_write,
)
