"""Methods on task vectors, the differences d_i of models to their base.

All of them are: mask the differences, make up for what was dropped, let signs be elected or not, add.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, Kind, MergeMethod, Parameter
from modelyard.merging.methods.parameters import DENSITY, INT8_MASK, LAMBDA, WEIGHT, normalize, rescale
from modelyard.merging.tensors import Election, Mask, Tensors

_ELECTIONS = {"sum": Election.SUM, "count": Election.COUNT}


def task_arithmetic(tensors: Tensors) -> None:
    """b + lambda sum w_i d_i, divided by sum w_i where weights are normalised."""
    add_up(tensors, [Mask()] * tensors.count, Election.NONE)


def ties(tensors: Tensors) -> None:
    """Trim the smallest differences, elect a sign, and average those that have it."""
    election = _ELECTIONS[tensors.text("consensus_method")]
    add_up(tensors, trimmed(tensors), election, scales=_kept_in_size(tensors))


def dare_linear(tensors: Tensors) -> None:
    """Drop differences at random, rescale the others, and add."""
    masks = tensors.random(tensors.numbers("density"))
    add_up(tensors, masks, Election.NONE, scales=dare_scales(tensors, masks))


def dare_ties(tensors: Tensors) -> None:
    """Drop differences at random, rescale the others, elect a sign, and add those that have it."""
    masks = tensors.random(tensors.numbers("density"))
    add_up(tensors, masks, Election.SUM, scales=dare_scales(tensors, masks))


def add_up(
    tensors: Tensors, masks: Sequence[Mask], election: Election, *, scales: Floats | None = None
) -> None:
    """Emit base + lambda * the weighted sum of masked and scaled differences."""
    tensors.combine(
        masks,
        weights=tensors.numbers("weight"),
        scales=scales,
        election=election,
        divide=tensors.flag("normalize"),
        scale=tensors.number("lambda"),
    )


def trimmed(tensors: Tensors) -> list[Mask]:
    """Masks of the int(density n) largest differences; at least one where the density is not 0."""
    return tensors.largest([_kept(density, tensors.size) for density in tensors.numbers("density")])


def _kept(density: float, size: int) -> int:
    if density <= 0:
        return 0
    return size if density >= 1 else max(1, int(density * size))


def _kept_in_size(tensors: Tensors) -> Floats | None:
    return size_scales(tensors, trimmed(tensors)) if tensors.flag("rescale") else None


def size_scales(tensors: Tensors, masks: Sequence[Mask]) -> Floats:
    """Factors that give masked differences back their sum of magnitudes; 1 where nothing is left."""
    whole, kept = tensors.magnitude_sums(masks)
    return np.where(kept > 0, whole / np.where(kept > 0, kept, 1.0), 1.0)


def dare_scales(tensors: Tensors, masks: Sequence[Mask]) -> Floats | None:
    """The factors of what was not dropped: by size as mergekit does it, or 1/density as in the paper."""
    if not tensors.flag("rescale"):
        return None
    if tensors.text("rescale_by") == "size":
        return size_scales(tensors, masks)
    density = tensors.numbers("density")
    return np.where(density > 0, 1.0 / np.where(density > 0, density, 1.0), 1.0)


_RESCALE_BY = Parameter(
    name="rescale_by",
    help="size: keep the sum of magnitudes (mergekit); density: divide by the density (the paper).",
    kind=Kind.CHOICE,
    default="size",
    choices=("size", "density"),
)
_UNUSED = {**INT8_MASK, "density": "nothing is dropped", "rescale": "nothing is dropped"}

TASK_ARITHMETIC = MergeMethod(
    name="task_arithmetic",
    merge=task_arithmetic,
    formula="b + λ sum_i w_i (x_i - b)",
    paper="Ilharco et al., Editing models with task arithmetic, ICLR 2023 (arXiv 2212.04089)",
    base=Base.REQUIRED,
    parameters=(WEIGHT, LAMBDA, normalize(default=False)),
    accepted=_UNUSED,
)

TIES = MergeMethod(
    name="ties",
    merge=ties,
    formula="b + λ sum_A w_i m_i d_i / sum_A w_i; m_i keeps the largest |d_i|, A have the elected sign",
    paper="Yadav et al., TIES-Merging, NeurIPS 2023 (arXiv 2306.01708)",
    base=Base.REQUIRED,
    parameters=(
        WEIGHT,
        DENSITY,
        LAMBDA,
        normalize(default=True),
        rescale(default=False),
        Parameter(
            name="consensus_method",
            help="sum: the sign of the weighted sum is elected; count: that of most models.",
            kind=Kind.CHOICE,
            default="sum",
            choices=("sum", "count"),
        ),
    ),
    accepted=INT8_MASK,
)

DARE_LINEAR = MergeMethod(
    name="dare_linear",
    merge=dare_linear,
    formula="b + λ sum_i w_i s_i m_i d_i; m_i drops at random, s_i makes up for it",
    paper="Yu et al., Language models are Super Mario, ICML 2024 (arXiv 2311.03099)",
    base=Base.REQUIRED,
    parameters=(WEIGHT, DENSITY, LAMBDA, normalize(default=False), rescale(default=True), _RESCALE_BY),
    accepted=INT8_MASK,
)

DARE_TIES = MergeMethod(
    name="dare_ties",
    merge=dare_ties,
    formula="b + λ sum_A w_i s_i m_i d_i; m_i drops at random, s_i makes up for it, A have the elected sign",
    paper="Yu et al. (arXiv 2311.03099) with the election of Yadav et al. (arXiv 2306.01708)",
    base=Base.REQUIRED,
    parameters=(WEIGHT, DENSITY, LAMBDA, normalize(default=False), rescale(default=True), _RESCALE_BY),
    accepted=INT8_MASK,
)
