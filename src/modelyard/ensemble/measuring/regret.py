"""How much worse than one expert an aggregation may be.

Second-order rules have a regret against expert k of order `sqrt(V_k ln M)`, with V_k the sum of
squares of mixture - expert (Wintenberger 2017, theorem 3.3; Gaillard, Stoltz & van Erven 2014). A
memory of beta mixes a share 1 - beta of the prior back in at every row, which multiplies ln M by `1 +
(1 - beta) T` (Cesa-Bianchi & Lugosi 2006, 2.11); a delay of h rows multiplies by h under the root and
at the constant (Joulani, György & Szepesvári 2013). For the delayed, discounted, adaptive rule that
runs here no theorem covers the whole, so this is a working bound: the tests hold it against
adversarial sequences. It never exceeds the sum of |mixture - expert|, which always holds.
"""

from __future__ import annotations

import math

import numpy as np

from modelyard.ensemble.combining.lessons import Floats


def regret_bound(gap_n: Floats, *, members: int, beta: float, delay: int) -> float:
    """The summed absolute error by which a mixture may exceed an expert's.

    Args:
        gap_n: Mixture - expert on the rows learnt, in units of y, `(T,)`.
        members: M, the number of experts mixed.
        beta: Memory in (0, 1].
        delay: Steps until a row's truth arrives: the lead.
    """
    if not len(gap_n):
        return 0.0
    sizes = np.abs(gap_n)
    log_members = math.log(max(members, 2))
    forgetting = 1.0 + (1.0 - beta) * len(gap_n)
    drift = 2.0 * math.sqrt(delay * float(sizes @ sizes) * forgetting * log_members)
    start = delay * float(sizes.max()) * (4.0 / 3.0 * log_members + 2.0)
    return min(drift + start, float(sizes.sum()))
