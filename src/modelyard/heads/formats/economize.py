"""What economize 0.3 saves: `economize_config.json` and `economize_model.safetensors`.

`medusa.heads.{k}.blocks.{j}.linear.weight` and `.bias`, `medusa.heads.{k}.proj.weight`. Its shared heads read
the hidden state before the base's final norm, and ours the one after it: no weights make them the same, so
that heads go there with projections of their own and shared ones from there are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.formats.assembling import assemble
from modelyard.heads.formats.files import (
    read_config,
    read_tensors,
    stated_number,
    write_config,
    write_tensors,
)
from modelyard.heads.formats.layout import BaseFacts, Found, Layout, whole_projections
from modelyard.heads.formats.medusa import medusa_parts, medusa_tensors
from modelyard.heads.model import Heads

_CONFIG, _FILE = "economize_config.json", "economize_model.safetensors"
#: The version whose loader read what is written here.
_VERSION = "0.3.2"
_OURS = re.compile(r"medusa\.heads\.(\d+)\.(?:blocks\.(\d+)\.(linear\.(?:weight|bias))|proj\.(weight))")
_NAME = re.compile(r"(\d+)\.(\d+)\.(linear\.weight|linear\.bias|weight)")


def _recognises(folder: Path, config: Mapping[str, Any]) -> bool:
    return (folder / _CONFIG).is_file()


def _read(folder: Path, base: BaseFacts) -> Found:
    settings = _settings(read_config(folder / _CONFIG), place=str(folder / _CONFIG))
    if settings.get("head", "own") != "own":
        raise HeadsError(
            f"{folder}: these heads read the hidden state before the base's final norm (head:"
            f" {settings['head']!r}), which cannot be converted; train heads here"
        )
    place = str(folder / _FILE)
    parts = medusa_parts(_renamed(read_tensors(folder / _FILE), place=place), {}, place=place)
    stated_heads, stated_layers = stated_number(settings, "num_heads"), stated_number(settings, "num_layers")
    return assemble(replace(parts, stated_heads=stated_heads, stated_layers=stated_layers), base, place=place)


def _settings(document: Mapping[str, Any], *, place: str) -> dict[str, Any]:
    """Those of the one technique that Medusa heads are."""
    techniques = document.get("techniques")
    found = [
        entry.get("config")
        for entry in (techniques if isinstance(techniques, list) else [])
        if isinstance(entry, dict) and entry.get("technique") == "medusa"
    ]
    if len(found) != 1 or not isinstance(found[0], dict):
        raise HeadsError(f"{place}: holds {len(found)} sets of Medusa heads; give a folder with one")
    return found[0]


def _renamed(tensors: Mapping[str, torch.Tensor], *, place: str) -> dict[str, torch.Tensor]:
    """economize's names as Medusa's."""
    found = {name: _OURS.fullmatch(name) for name in tensors}
    odd = [name for name, match in found.items() if match is None]
    if odd:
        raise HeadsError(
            f"{place}: tensor {odd[0][:80]!r} is no part of Medusa heads; give a folder of heads"
        )
    layers = 1 + max((int(match[2]) for match in found.values() if match and match[2]), default=-1)
    return {
        f"{match[1]}.{match[2]}.{match[3]}" if match[2] else f"{match[1]}.{layers}.weight": tensors[name]
        for name, match in found.items()
        if match
    }


def _write(heads: Heads, folder: Path, base: BaseFacts) -> tuple[str, ...]:
    projections, notes = whole_projections(heads, base, layout="economize")
    write_tensors(
        {_their_name(name): tensor for name, tensor in medusa_tensors(heads, projections).items()},
        folder / _FILE,
    )
    config = {
        "num_heads": heads.config.heads, "num_layers": heads.config.layers, "head": "own", "tree": None,
        "param_dtype": "float32" if projections[0].dtype == torch.float32 else "model",
    }  # fmt: skip
    document = {
        "economize_version": _VERSION, "base_model": base.name, "teacher_fingerprint": None,
        "techniques": [{"technique": "medusa", "config": config}], "decoding": None,
    }  # fmt: skip
    write_config(document, folder / _CONFIG)
    return (*notes, "economize cannot check the base: its own fingerprint is not written")


def _their_name(name: str) -> str:
    match = _NAME.fullmatch(name)
    if match is None:
        raise HeadsError(f"tensor {name} is no part of Medusa heads; this is a fault of modelyard")
    inner = "proj.weight" if match[3] == "weight" else f"blocks.{match[2]}.{match[3]}"
    return f"medusa.heads.{match[1]}.{inner}"


LAYOUT = Layout(
    name="economize",
    about="economize 0.3: its own folder, projections of their own",
    recognises=_recognises,
    read=_read,
    write=_write,
)
