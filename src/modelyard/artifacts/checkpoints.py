"""Checkpoints: a folder as Hugging Face lays it out, or one file of tensors; what is in it, and where.

Nothing is read but headers and JSON. The architecture is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.artifacts.safetensors import TensorInfo, read_header
from modelyard.artifacts.torch_files import read_torch_file
from modelyard.core.errors import CheckpointError
from modelyard.core.files import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_TORCH_INDEX = "pytorch_model.bin.index.json"
_TORCH_SINGLE = "pytorch_model.bin"
_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What lies in a checkpoint."""

    path: Path
    # In the order of the files, and of the bytes within each.
    tensors: Mapping[str, TensorInfo]
    # config.json; empty where there is none.
    config: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where config and tokenizer lie."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold tensors."""
        return tuple(dict.fromkeys(info.path for info in self.tensors.values()))

    @property
    def bytes(self) -> int:
        """The bytes of all tensors."""
        return sum(info.bytes for info in self.tensors.values())


def open_checkpoint(path: Path) -> Checkpoint:
    """Find the tensors of a checkpoint folder or file.

    Raises:
        CheckpointError: Nothing is there, an index names what is not there, a header is damaged, or
            two files hold a tensor of the same name.
    """
    try:
        if path.is_file():
            return Checkpoint(path=path, tensors=_joined(path, [path]), config={})
        if path.is_dir():
            return Checkpoint(path=path, tensors=_in_folder(path), config=_config(path / "config.json"))
    except OSError as error:  # a folder that may not be entered; a name that is too long
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); give a checkpoint that you may read"
        ) from error
    raise CheckpointError(f"{path}: is neither a folder nor a file; give the path of a checkpoint")


def _in_folder(folder: Path) -> dict[str, TensorInfo]:
    for index, single in ((INDEX, SINGLE), (_TORCH_INDEX, _TORCH_SINGLE)):
        if (folder / index).is_file():
            return _indexed(folder / index)
        if (folder / single).is_file():
            return _joined(folder, [folder / single])
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise CheckpointError(
            f"{folder}: holds no {SINGLE}, {INDEX}, other .safetensors or {_TORCH_SINGLE}; "
            "give the folder of a checkpoint"
        )
    return _joined(folder, found)


def _indexed(index: Path) -> dict[str, TensorInfo]:
    document = _object(index)
    places = document.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: weight_map is missing or empty; fetch the checkpoint again")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index}: names {name[:80]!r}, which is not a file beside it; fetch the checkpoint again"
            )
    tensors = _joined(index.parent, [index.parent / name for name in names])
    missing = [name for name in places if name not in tensors]
    if missing:
        raise CheckpointError(
            f"{index}: names {len(missing)} tensors that no file holds, the first {missing[0][:80]!r}; "
            "fetch the checkpoint again"
        )
    return tensors


def _joined(place: Path, files: Iterable[Path]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for info in _tensors_of(file):
            if info.name in tensors:
                raise CheckpointError(
                    f"{place}: {info.name} is in both {tensors[info.name].path.name} and {file.name}; "
                    "remove the file that does not belong to this checkpoint"
                )
            tensors[info.name] = info
    if not tensors:
        raise CheckpointError(f"{place}: holds no tensors; give the path of a checkpoint")
    return tensors


def _tensors_of(file: Path) -> list[TensorInfo]:
    if file.suffix in _TORCH_SUFFIXES:
        return read_torch_file(file)
    return read_header(file)[0]


def _config(path: Path) -> dict[str, Any]:
    return _object(path) if path.is_file() else {}


def _object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); mend or fetch it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is not a JSON object; mend or fetch it again")
    return value
