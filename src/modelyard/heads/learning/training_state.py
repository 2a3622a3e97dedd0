"""The checkpoint of a training in progress: one file of safetensors, replaced whole, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from modelyard.core.errors import HeadsError
from modelyard.core.files import write_whole

CHECKPOINT = "training.safetensors"


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored:
    """All that the next step depends on."""

    # The digest of what is trained, and how.
    asked: str
    # JSON.
    standing: str
    # In the order of the optimiser.
    parameters: Sequence[torch.Tensor]
    # Of each parameter: moments and the count of steps.
    optimiser: Sequence[Mapping[str, torch.Tensor]]
    # The heads at the best measurement, by name; empty before the first.
    best: Mapping[str, torch.Tensor] = field(default_factory=dict)


def write_stored(path: Path, stored: Stored) -> None:
    """Replace the checkpoint in one step."""
    tensors = {f"parameter.{i}": tensor for i, tensor in enumerate(stored.parameters)}
    for i, state in enumerate(stored.optimiser):
        tensors |= {f"optimiser.{i}.{name}": tensor for name, tensor in state.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in stored.best.items()}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(whole, {"asked": stored.asked, "standing": stored.standing}))


def read_stored(path: Path) -> Stored | None:
    """The checkpoint; None where there is none.

    Raises:
        HeadsError: It is damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except Exception as error:  # safetensors raises what it likes
        raise HeadsError(
            f"{path}: cannot be read ({error}); remove it, and the training begins anew"
        ) from error
    count = sum(name.startswith("parameter.") for name in tensors)
    return Stored(
        asked=told["asked"],
        standing=told["standing"],
        parameters=[tensors[f"parameter.{i}"] for i in range(count)],
        optimiser=[_under(f"optimiser.{i}.", tensors) for i in range(count)],
        best=_under("best.", tensors),
    )


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
