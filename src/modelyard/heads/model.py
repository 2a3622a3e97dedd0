"""The heads as a module of torch: residual blocks and a projection to the tokens that can be drafted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from modelyard.core.errors import HeadsError
from modelyard.core.files import write_json
from modelyard.heads.base import Base
from modelyard.heads.config import RECORD, TENSORS, HeadsConfig, HeadsRecord, read_record


class ResidualBlock(nn.Module):
    """x + SiLU(W x + b), which at W = 0 and b = 0 gives back x (arXiv 2401.10774, equation 1)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, hidden_size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden_nh: torch.Tensor) -> torch.Tensor:
        """[..., hidden] to [..., hidden]."""
        return hidden_nh + nn.functional.silu(self.linear(hidden_nh))


class Heads(nn.Module):
    """A set of heads; before any training each foretells what the base's own projection does.

    Args:
        config: Their shape.
        projection_vh: The base's output projection, [vocabulary, hidden].
        shortlist: The tokens that can be drafted, [drafted]; None for all.
    """

    shortlist: torch.Tensor
    shared_sh: torch.Tensor

    def __init__(
        self, config: HeadsConfig, projection_vh: torch.Tensor, shortlist: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        _check_shapes(config, projection_vh, shortlist)
        self.config = config
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(config.hidden_size) for _ in range(config.layers)))
            for _ in range(config.heads)
        )
        chosen = torch.arange(config.vocab_size) if shortlist is None else shortlist.long()
        self.register_buffer("shortlist", chosen.to(projection_vh.device), persistent=False)
        # a view of the base's weights where all tokens can be drafted, a copy of some rows otherwise
        rows_sh = projection_vh if shortlist is None else projection_vh[self.shortlist]
        self.register_buffer("shared_sh", rows_sh.detach(), persistent=False)
        self.projections = nn.ParameterList(
            nn.Parameter(rows_sh.detach().clone())
            for _ in range(config.heads if config.projection == "own" else 0)
        )

    def states(self, hidden_nh: torch.Tensor, heads: int | None = None) -> torch.Tensor:
        """What each of the first `heads`, or of all, projects: [heads, ..., hidden]."""
        return torch.stack([block(hidden_nh) for block in self.blocks[:heads]])

    def projection(self, head: int) -> torch.Tensor:
        """The projection of a head, [drafted, hidden]."""
        return self.projections[head] if self.config.projection == "own" else self.shared_sh

    def forward(self, hidden_nh: torch.Tensor, heads: int | None = None) -> torch.Tensor:
        """Logits of the first `heads`, or all, over what can be drafted: [heads, ..., drafted]."""
        states_knh = self.states(hidden_nh, heads)
        if self.config.projection == "shared":
            return nn.functional.linear(states_knh.to(self.shared_sh.dtype), self.shared_sh)
        return torch.stack(
            [nn.functional.linear(state, self.projection(k)) for k, state in enumerate(states_knh)]
        )

    def drafts(self, hidden_bh: torch.Tensor, ranks: int, *, heads: int | None = None) -> torch.Tensor:
        """The likeliest tokens of the first `heads` in the order of their ranks, [heads, batch, ranks]."""
        top_kbr = torch.topk(self(hidden_bh, heads), min(ranks, self.config.drafted), dim=-1).indices
        return self.shortlist[top_kbr]

    def _linears(self) -> Iterator[tuple[str, nn.Linear]]:
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                yield name, module

    def tensors(self) -> dict[str, torch.Tensor]:
        """What is stored, by the names of `heads.safetensors`."""
        stored: dict[str, torch.Tensor] = {}
        for name, linear in self._linears():
            stored |= {f"{name}.weight": linear.weight, f"{name}.bias": linear.bias}
        for k, weight_sh in enumerate(self.projections):
            stored[f"{k}.projection.weight"] = weight_sh
        if self.config.shortlisted:
            stored["shortlist"] = self.shortlist.to(torch.int32)
        return {name: tensor.detach().contiguous().cpu() for name, tensor in stored.items()}

    def load(self, tensors: Mapping[str, torch.Tensor], *, place: str) -> None:
        """Take the values of `tensors`, which must be exactly those of this shape.

        Raises:
            HeadsError: One is missing, too many, or of another shape.
        """
        wanted = self.tensors()
        for name in sorted(wanted.keys() | tensors.keys()):
            here, there = wanted.get(name), tensors.get(name)
            if here is None or there is None or here.shape != there.shape:
                found = "missing" if there is None else f"of shape {list(there.shape)}"
                needed = (
                    "not part of these heads" if here is None else f"needed with shape {list(here.shape)}"
                )
                raise HeadsError(f"{place}: tensor {name} is {found} and {needed}; fetch the heads again")
        with torch.no_grad():
            for name, linear in self._linears():
                linear.weight.copy_(tensors[f"{name}.weight"])
                linear.bias.copy_(tensors[f"{name}.bias"])
            for k, weight_sh in enumerate(self.projections):
                weight_sh.copy_(tensors[f"{k}.projection.weight"])


def load_heads(folder: Path, base: Base, *, other_base: bool = False) -> Heads:
    """The heads of a folder on their base, in its type and on its device, for inference.

    Args:
        folder: As `save_heads` writes it.
        base: The model that they were trained on.
        other_base: Take them on another model too, as after a merge, when how well they do is to be found.

    Raises:
        HeadsError: They belong to another base, or the folder is damaged.
    """
    config = read_record(folder).config
    if not other_base and config.base != base.fingerprint:
        raise HeadsError(
            f"{folder}: these heads belong to {config.base_name or 'another base'} ({config.base[:19]}), not"
            f" to {base.folder} ({base.fingerprint[:19]}); train its own, or measure these by `heads check`"
        )
    path = folder / TENSORS
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises what it likes
        raise HeadsError(f"{path}: cannot be read ({error}); fetch the heads again") from error
    heads = Heads(config, base.projection_vh, tensors.get("shortlist"))
    heads.load(tensors, place=str(path))
    return heads.to(base.device, base.dtype).eval().requires_grad_(False)


def save_heads(heads: Heads, folder: Path, training: Mapping[str, Any]) -> None:
    """Write a folder of heads; the record comes last, so that a folder with one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    unfinished = folder / f".{TENSORS}.part"
    save_file(heads.tensors(), unfinished)
    unfinished.replace(folder / TENSORS)
    write_json(folder / RECORD, HeadsRecord(config=heads.config, training=training).as_json())


def _check_shapes(
    config: HeadsConfig, projection_vh: torch.Tensor, shortlist: torch.Tensor | Sequence[int] | None
) -> None:
    if tuple(projection_vh.shape) != (config.vocab_size, config.hidden_size):
        raise HeadsError(
            f"the base projects by {list(projection_vh.shape)}, these heads want"
            f" [{config.vocab_size}, {config.hidden_size}]; use the base that they were trained on"
        )
    if (len(shortlist) if shortlist is not None else config.vocab_size) != config.drafted:
        raise HeadsError(f"the shortlist is not of {config.drafted} tokens; fetch the heads again")
    if shortlist is not None and not all(0 <= int(token) < config.vocab_size for token in shortlist):
        raise HeadsError("the shortlist names tokens that the base has not; fetch the heads again")
