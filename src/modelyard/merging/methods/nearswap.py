"""Take over the other model's values where they are near the base's."""

from __future__ import annotations

import numpy as np

from modelyard.merging.method import Base, MergeMethod, Parameter
from modelyard.merging.methods.elementwise import differences
from modelyard.merging.tensors import Tensors


def nearswap(tensors: Tensors) -> None:
    """b + clip(t/|x - b|, 0, 1) (x - b); b where both are equal."""
    t = tensors.number("t")
    for _, base, (difference,) in differences(tensors):
        gap = np.abs(difference)
        share = np.clip(t / np.where(gap > 0, gap, 1.0), 0.0, 1.0)
        tensors.emit_next(base + share * difference)


NEARSWAP = MergeMethod(
    name="nearswap",
    merge=nearswap,
    formula="g x + (1-g) b with g = clip(t/|x - b|, 0, 1) at each element",
    base=Base.REQUIRED,
    most=1,
    parameters=(
        Parameter(
            name="t",
            help="Differences up to this are taken over whole; of larger ones so much. 0 or less: the base.",
        ),
    ),
)
