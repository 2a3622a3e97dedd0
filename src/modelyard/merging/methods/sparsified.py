"""Methods on task vectors that drop outliers, or drop by chance and rank.

As those of `task_vectors.py`: mask the differences, make up for what was dropped, let signs be
elected or not, add. DELLA ranks by row, and so works on blocks of whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelyard.merging.blocks import Floats
from modelyard.merging.method import Base, Complaint, Kind, MergeMethod, Parameter
from modelyard.merging.methods.elementwise import agreed, differences
from modelyard.merging.methods.parameters import DENSITY, INT8_MASK, LAMBDA, TINY, WEIGHT, normalize, rescale
from modelyard.merging.methods.task_vectors import add_up, size_scales
from modelyard.merging.tensors import Election, Mask, Tensors, Values


def breadcrumbs(tensors: Tensors) -> None:
    """Drop the largest and the smallest differences, and add."""
    _add_middle(tensors, Election.NONE)


def breadcrumbs_ties(tensors: Tensors) -> None:
    """Drop the largest and the smallest differences, elect a sign, and add those that have it."""
    _add_middle(tensors, Election.SUM)


def della_linear(tensors: Tensors) -> None:
    """Drop differences by chance, small ones rather than large ones, rescale the others, and add."""
    _add_drawn(tensors, elect=False)


def della(tensors: Tensors) -> None:
    """Drop differences by chance and rank, rescale the others, elect a sign, and average what has it."""
    _add_drawn(tensors, elect=True)


def _add_middle(tensors: Tensors, election: Election) -> None:
    masks = _middle(tensors)
    scales = size_scales(tensors, masks) if tensors.flag("rescale") else None
    add_up(tensors, masks, election, scales=scales)


def _middle(tensors: Tensors) -> list[Mask]:
    """Masks of int(density n) differences; before them the int(gamma n) largest, or as many as there are."""
    n = tensors.size
    keep = [int(min(density, 1.0) * n) for density in tensors.numbers("density")]
    skip = [min(int(gamma * n), n - k) for gamma, k in zip(tensors.numbers("gamma"), keep, strict=True)]
    return tensors.largest(keep, skip=skip)


def _add_drawn(tensors: Tensors, *, elect: bool) -> None:
    """Emit base + lambda * the weighted sum of what was drawn."""
    weights, divide = tensors.numbers("weight"), tensors.flag("normalize")
    total = float(weights.sum())
    divisor = total if divide and abs(total) >= TINY else 1.0
    scales = _scales(tensors)
    for place, base, changes in differences(tensors, _row(tensors)):
        factors = [scale * _drawn(tensors, j, place, changes[j]) for j, scale in enumerate(scales)]
        terms = [w * (f * d) for w, f, d in zip(weights, factors, changes, strict=True)]
        change = agreed(terms, weights, divide=divide) if elect else np.sum(terms, axis=0) / divisor
        tensors.emit_next(base + tensors.number("lambda") * change)


def _row(tensors: Tensors) -> int:
    return max(tensors.shape[-1] if tensors.shape else 1, 1)


def _scales(tensors: Tensors) -> Sequence[float]:
    """What keeps the sum of each model's magnitudes, where that is asked for."""
    if not tensors.flag("rescale") or tensors.text("rescale_by") != "size":
        return [1.0] * tensors.count
    sums = np.zeros((tensors.count, 2))
    for place, _, changes in differences(tensors, _row(tensors)):
        sums += [
            [np.abs(d).sum(), np.abs(d * _drawn(tensors, j, place, d)).sum()] for j, d in enumerate(changes)
        ]
    return [whole / kept if kept > 0 else 1.0 for whole, kept in sums]


def _drawn(tensors: Tensors, j: int, place: slice, change: Floats) -> Floats:
    """Of whole rows: 0 where model j's differences are dropped, else 1 or 1 by the chance to be kept."""
    density, epsilon = float(tensors.numbers("density")[j]), float(tensors.numbers("epsilon")[j])
    if density in (0.0, 1.0):
        return np.full(len(change), density)
    chances = density + epsilon * _spread(np.abs(change).reshape(-1, _row(tensors))).reshape(-1)
    kept = tensors.uniforms(j, place.start, len(chances)) < chances
    divide = tensors.flag("rescale") and tensors.text("rescale_by") != "size"
    return np.where(kept, 1.0 / chances if divide else 1.0, 0.0)


def _spread(sizes: Floats) -> Floats:
    """From -1 for a row's smallest to 1 for its largest, evenly by rank; equal ones in order; 0 alone."""
    last = sizes.shape[1] - 1
    if last < 1:
        return np.zeros(sizes.shape)
    spread = np.empty(sizes.shape)
    ranks = np.broadcast_to(2.0 * np.arange(last + 1) / last - 1.0, sizes.shape)
    np.put_along_axis(spread, np.argsort(sizes, axis=1, kind="stable"), ranks, axis=1)
    return spread


def _probabilities(values: Values) -> Complaint | None:
    """The probabilities to be kept, density - epsilon to density + epsilon, must be some."""
    for each in values.each:
        density, epsilon = float(each["density"]), float(each["epsilon"])
        low, high = density - epsilon, density + epsilon
        if density not in (0.0, 1.0) and not 0 < low <= high < 1:
            return Complaint(
                parameter="epsilon",
                value=epsilon,
                problem=f"with density {density:g} makes probabilities from {low:g} to {high:g}, of 0 to 1",
                remedy=f"set epsilon below {min(density, 1 - density):g}",
            )
    return None


_GAMMA = Parameter(
    name="gamma",
    help="The share of the largest differences that is dropped, as far as density leaves room.",
    default=0.01,
    low=0.0,
    high=1.0,
    per_model=True,
)
_EPSILON = Parameter(
    name="epsilon",
    help="A row's smallest difference is kept with probability density - epsilon, its largest + epsilon.",
    default=0.15,
    low=0.0,
    high=0.5,
    per_model=True,
)
_RESCALE_BY = Parameter(
    name="rescale_by",
    help="size: keep the sum of magnitudes (mergekit); density: divide by the probability (the paper).",
    kind=Kind.CHOICE,
    default="size",
    choices=("size", "density"),
)
_MIDDLE = (WEIGHT, DENSITY, _GAMMA, LAMBDA, normalize(default=False), rescale(default=False))
_DRAWN = (WEIGHT, DENSITY, _EPSILON, LAMBDA, rescale(default=True), _RESCALE_BY)
_BREADCRUMBS = "Davari and Belilovsky, Model Breadcrumbs, ECCV 2024 (arXiv 2312.06795)"
_DELLA = "Deep, Bhardwaj and Poria, DELLA-Merging, 2024 (arXiv 2406.11617)"

BREADCRUMBS = MergeMethod(
    name="breadcrumbs",
    merge=breadcrumbs,
    formula="b + λ sum_i w_i m_i d_i; m_i drops the largest |d_i| and the smallest",
    paper=_BREADCRUMBS,
    base=Base.REQUIRED,
    parameters=_MIDDLE,
    accepted=INT8_MASK,
)

BREADCRUMBS_TIES = MergeMethod(
    name="breadcrumbs_ties",
    merge=breadcrumbs_ties,
    formula="b + λ sum_A w_i m_i d_i; m_i drops the largest |d_i| and the smallest, A have the elected sign",
    paper=f"{_BREADCRUMBS}; with the election of Yadav et al. (arXiv 2306.01708)",
    base=Base.REQUIRED,
    parameters=_MIDDLE,
    accepted=INT8_MASK,
)

DELLA_LINEAR = MergeMethod(
    name="della_linear",
    merge=della_linear,
    formula="b + λ sum_i w_i s_i m_i d_i; m_i drops by chance, the smaller of a row more often, s_i makes up",
    paper=_DELLA,
    base=Base.REQUIRED,
    parameters=(*_DRAWN, normalize(default=False)),
    accepted=INT8_MASK,
    check=_probabilities,
)

DELLA = MergeMethod(
    name="della",
    merge=della,
    formula="b + λ sum_A w_i s_i m_i d_i / sum_A w_i; m_i, s_i as in della_linear, A have the elected sign",
    paper=_DELLA,
    base=Base.REQUIRED,
    parameters=(*_DRAWN, normalize(default=True)),
    accepted=INT8_MASK,
    check=_probabilities,
)
