"""From the tensors of a foreign folder to heads: the tensors decide how many there are, and are checked.

Config files that lie about the number of heads are common (one that was published with Medusa says 3 and
ships 5), so that what they state is only compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.config import HeadsConfig
from modelyard.heads.formats.layout import BaseFacts, Found
from modelyard.heads.model import Heads

#: Head and residual block, both from 0.
Place = tuple[int, int]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Parts:
    """The tensors of heads, whatever their layout calls them."""

    # Of the residual blocks, [hidden, hidden] and [hidden].
    weights: Mapping[Place, torch.Tensor]
    # Blocks without one have none that was trained: zeros.
    biases: Mapping[Place, torch.Tensor] = field(default_factory=dict)
    # By head, [drafted, hidden]; empty where the base's is used.
    projections: Mapping[int, torch.Tensor] = field(default_factory=dict)
    # The tokens of the rows of the projection; None where row i is token i.
    shortlist: torch.Tensor | None = None
    # What the layout's config states, where it does.
    stated_heads: int | None = None
    stated_layers: int | None = None


def assemble(parts: Parts, base: BaseFacts, *, place: str) -> Found:
    """Make heads of their parts.

    Args:
        parts: As they were read; tensors are taken in the widest of their types.
        base: Whose heads they are to be.
        place: The folder, for errors.

    Raises:
        HeadsError: A part is missing, or they do not fit the base.
    """
    heads, layers = _counts(parts, place=place)
    _check_blocks(parts, base, place=place)
    projections, shortlist, notes = _projections(parts, heads, base, place=place)
    dtype = _widest([*parts.weights.values(), *parts.biases.values(), *projections])
    config = HeadsConfig(
        heads=heads, layers=layers, hidden_size=base.hidden_size, vocab_size=base.vocab_size,
        projection="own" if projections else "shared",
        drafted=base.vocab_size if shortlist is None else len(shortlist),
        base=base.fingerprint, base_name=base.name,
    )  # fmt: skip
    made = Heads(config, base.projection_vh.to(dtype), shortlist).to(dtype)
    made.load(_named(parts, projections, shortlist), place=place)
    notes = [*_miscounted(parts, heads, layers), *_aliased(parts, heads, layers), *notes]
    if len(parts.biases) < len(parts.weights):
        notes.append("blocks without biases are given zeros, which is the same")
    return Found(heads=made.eval().requires_grad_(False), notes=tuple(notes))


def _counts(parts: Parts, *, place: str) -> tuple[int, int]:
    heads = 1 + max((k for k, _ in parts.weights), default=-1)
    layers = 1 + max((j for _, j in parts.weights), default=-1)
    missing = [f"{k}.{j}" for k in range(heads) for j in range(layers) if (k, j) not in parts.weights]
    if not heads or missing or not parts.biases.keys() <= parts.weights.keys():
        what = f"block {missing[0]} is missing" if missing else "there are no residual blocks"
        raise HeadsError(f"{place}: {what} among the tensors; fetch the heads again")
    return heads, layers


def _check_blocks(parts: Parts, base: BaseFacts, *, place: str) -> None:
    width = base.hidden_size
    for (k, j), weight_hh in parts.weights.items():
        bias_h = parts.biases.get((k, j))
        shapes = [list(weight_hh.shape), *([] if bias_h is None else [list(bias_h.shape)])]
        if list(weight_hh.shape) != [width, width] or (bias_h is not None and list(bias_h.shape) != [width]):
            raise HeadsError(
                f"{place}: block {j} of head {k} has shapes {shapes}, the base's hidden size is {width}; give"
                " the base that they were trained on"
            )


def _projections(
    parts: Parts, heads: int, base: BaseFacts, *, place: str
) -> tuple[list[torch.Tensor], torch.Tensor | None, list[str]]:
    """Own projections (none where they are the base's), the shortlist, and notes."""
    shortlist = None if parts.shortlist is None else parts.shortlist.long()
    if not parts.projections:
        return [], shortlist, []
    if sorted(parts.projections) != list(range(heads)):
        raise HeadsError(
            f"{place}: {heads} heads, and projections of heads {sorted(parts.projections)}; fetch them again"
        )
    rows = [parts.projections[k] for k in range(heads)]
    shapes = sorted({tuple(row.shape) for row in rows})
    if len(shapes) > 1 or len(shapes[0]) != 2 or shapes[0][1] != base.hidden_size:
        raise HeadsError(
            f"{place}: the projections have shapes {[list(shape) for shape in shapes]}, the base's hidden"
            f" size is {base.hidden_size}; give the base that they were trained on"
        )
    rows, shortlist, notes = _to_vocabulary(rows, shortlist, base)
    own_vh = base.projection_vh if shortlist is None else base.projection_vh[shortlist]
    if all(torch.equal(row.float(), own_vh.float()) for row in rows):
        return [], shortlist, [*notes, "every projection is the base's own, so that the heads share it"]
    return rows, shortlist, notes


def _to_vocabulary(
    rows: list[torch.Tensor], shortlist: torch.Tensor | None, base: BaseFacts
) -> tuple[list[torch.Tensor], torch.Tensor | None, list[str]]:
    """Cut what pads a vocabulary; take rows that are too few for the first tokens."""
    given, known = len(rows[0]), base.vocab_size
    if shortlist is not None or given == known:
        return rows, shortlist, []
    if given > known:
        note = (
            f"the projections have {given} rows for {known} tokens of the base; the first {known} are taken"
        )
        return [row[:known] for row in rows], None, [note]
    note = (
        f"the projections have {given} rows for {known} tokens of the base; the first {given} can be drafted"
    )
    return rows, torch.arange(given), [note]


def _widest(tensors: Iterable[torch.Tensor]) -> torch.dtype:
    return reduce(torch.promote_types, [tensor.dtype for tensor in tensors])


def _named(
    parts: Parts, projections: list[torch.Tensor], shortlist: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """By the names of `heads.safetensors`."""
    named: dict[str, torch.Tensor] = {}
    for (k, j), weight_hh in parts.weights.items():
        named[f"{k}.{j}.linear.weight"] = weight_hh
        named[f"{k}.{j}.linear.bias"] = parts.biases.get((k, j), weight_hh.new_zeros(len(weight_hh)))
    named |= {f"{k}.projection.weight": rows for k, rows in enumerate(projections)}
    if shortlist is not None:
        named["shortlist"] = shortlist
    return named


def _miscounted(parts: Parts, heads: int, layers: int) -> list[str]:
    pairs = ((parts.stated_heads, heads, "heads"), (parts.stated_layers, layers, "residual blocks a head"))
    return [
        f"the config states {stated} {what}, the tensors hold {there}: the tensors are right"
        for stated, there, what in pairs
        if stated is not None and stated != there
    ]


def _aliased(parts: Parts, heads: int, layers: int) -> list[str]:
    """Medusa's own training repeats one block where it is told to have several."""
    same = layers > 1 and all(
        torch.equal(parts.weights[k, 0], parts.weights[k, j]) for k in range(heads) for j in range(1, layers)
    )
    if not same:
        return []
    return [f"the {layers} blocks of each head are one block repeated, as Medusa's own training makes them"]
