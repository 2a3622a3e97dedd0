"""Medusa's own layout (FasterDecoding/Medusa 0.1 and 1.0): each head has a projection of its own.

`medusa_lm_head.pt` or `.safetensors` with `{k}.{j}.linear.weight` and `.bias` for residual block j of head k
and `{k}.{L}.weight` for its projection, L being the number of blocks; `config.json` with medusa_num_heads,
medusa_num_layers and base_model_name_or_path. The reference builds one block and repeats it L times: of heads
with several blocks it loads the last one of each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modelyard.core.errors import CheckpointError, HeadsError
from modelyard.heads.formats.assembling import Parts, Place, assemble
from modelyard.heads.formats.files import (
    CONFIG,
    read_config,
    read_tensors,
    stated_number,
    tensor_names,
    write_config,
    write_tensors,
)
from modelyard.heads.formats.layout import BaseFacts, Found, Layout, whole_projections
from modelyard.heads.model import Heads

#: The first that is there is read: one of safetensors cannot hold code.
FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt")
_NAME = re.compile(r"(?:medusa_heads?\.)?(\d+)\.(\d+)\.(linear\.weight|linear\.bias|weight)")


def head_file(folder: Path) -> Path | None:
    """The file of heads in a folder of Medusa's, None where there is none."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def has_projections(path: Path) -> bool:
    """Whether a file of Medusa's heads has projections of their own; False for a damaged one."""
    try:
        names = tensor_names(path)
    except CheckpointError:
        return False
    return any((match := _NAME.fullmatch(name)) and match[3] == "weight" for name in names)


def medusa_parts(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any], *, place: str) -> Parts:
    """Sort the tensors of a file of Medusa's.

    Raises:
        HeadsError: One has a name that is not of this layout, or a projection is not after the blocks.
    """
    found: dict[str, dict[Place, torch.Tensor]] = {"linear.weight": {}, "linear.bias": {}, "weight": {}}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise HeadsError(
                f"{place}: tensor {name[:80]!r} is no part of Medusa heads; give a folder of heads"
            )
        found[match[3]][int(match[1]), int(match[2])] = tensor
    layers = 1 + max((j for _, j in found["linear.weight"]), default=-1)
    if any(j != layers for _, j in found["weight"]):
        raise HeadsError(f"{place}: a projection does not come after {layers} blocks; fetch the heads again")
    return Parts(
        weights=found["linear.weight"],
        biases=found["linear.bias"],
        projections={k: rows for (k, _), rows in found["weight"].items()},
        stated_heads=stated_number(config, "medusa_num_heads", "num_heads"),
        stated_layers=stated_number(config, "medusa_num_layers", "num_hidden_layers"),
    )


def medusa_tensors(heads: Heads, projections: Sequence[torch.Tensor] = ()) -> dict[str, torch.Tensor]:
    """Blocks, and projections after them, by Medusa's names."""
    named = {name: tensor for name, tensor in heads.tensors().items() if ".linear." in name}
    return named | {f"{k}.{heads.config.layers}.weight": rows for k, rows in enumerate(projections)}


def medusa_config(heads: Heads, base: BaseFacts) -> dict[str, Any]:
    """What Medusa's config.json says."""
    return {
        "medusa_num_heads": heads.config.heads,
        "medusa_num_layers": heads.config.layers,
        "base_model_name_or_path": base.name,
    }


def repeated_block_note(heads: Heads) -> list[str]:
    """What to say of several blocks to who loads them by the reference."""
    if heads.config.layers == 1:
        return []
    return [
        f"these heads have {heads.config.layers} blocks each: FasterDecoding's own code builds one and"
        " repeats it, and will load the last of them alone; TGI, vLLM and economize build all"
    ]


def read_medusa(folder: Path, base: BaseFacts) -> Found:
    """Read a folder of Medusa's, of either generation."""
    path = head_file(folder)
    if path is None:
        raise HeadsError(f"{folder}: holds neither {' nor '.join(FILES)}; give a folder of Medusa heads")
    config = read_config(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return assemble(medusa_parts(read_tensors(path), config, place=str(path)), base, place=str(path))


def _recognises(folder: Path, config: Mapping[str, Any]) -> bool:
    path = head_file(folder)
    return path is not None and has_projections(path)


def _write(heads: Heads, folder: Path, base: BaseFacts) -> tuple[str, ...]:
    projections, notes = whole_projections(heads, base, layout="medusa")
    tensors = medusa_tensors(heads, projections)
    for name in FILES:
        write_tensors(tensors, folder / name)
    write_config(medusa_config(heads, base), folder / CONFIG)
    return (*notes, *repeated_block_note(heads))


LAYOUT = Layout(
    name="medusa",
    about="FasterDecoding/Medusa 0.1 and 1.0: projections of their own, .pt and safetensors",
    recognises=_recognises,
    read=read_medusa,
    write=_write,
)
