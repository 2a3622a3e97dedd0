"""Files of tensors and configs in folders of heads: read with distrust, written whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.artifacts.safetensors import TensorInfo
from modelyard.core.errors import HeadsError
from modelyard.core.files import read_json, write_json

CONFIG = "config.json"


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors, .pt or .bin file; nothing in it is executed.

    Raises:
        CheckpointError: It is damaged, or holds anything but tensors.
    """
    return {name: _tensor(info) for name, info in open_checkpoint(path).tensors.items()}


def tensor_names(path: Path) -> frozenset[str]:
    """The names in a file, for which no tensor is read. Raises `CheckpointError`."""
    return frozenset(open_checkpoint(path).tensors)


def write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a file whole: .pt by PyTorch, all else as safetensors. Tensors may share memory."""
    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    unfinished = path.with_name(f".{path.name}.part")
    if path.suffix == ".pt":
        torch.save(apart, unfinished)
    else:
        save_file(apart, unfinished, metadata={"format": "pt"})
    # safetensors lets nobody else read; who may enter the folder may read what is in it
    unfinished.chmod(path.parent.stat().st_mode & 0o666)
    unfinished.replace(path)


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        HeadsError: The file is missing or holds none.
    """
    try:
        value = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise HeadsError(f"{path}: cannot be read as JSON ({error}); fetch the heads again") from error
    if not isinstance(value, dict):
        raise HeadsError(f"{path}: is not a JSON object; fetch the heads again")
    return value


def write_config(config: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object; a folder with one is whole."""
    write_json(path, dict(config))


def stated_number(config: Mapping[str, Any], *names: str) -> int | None:
    """The first whole number under one of `names`; None where there is none."""
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def _tensor(info: TensorInfo) -> torch.Tensor:
    with info.path.open("rb") as file:
        file.seek(info.offset)
        data = bytearray(file.read(info.bytes))
    if not data:
        return torch.empty(info.shape, dtype=getattr(torch, info.dtype.torch_name))
    read: torch.Tensor = torch.frombuffer(data, dtype=getattr(torch, info.dtype.torch_name))
    return read.reshape(info.shape)
