"""The estimate of one comparison by its method: which formula gets which numbers."""

from __future__ import annotations

import math

import numpy as np

from modelyard.evidence.clustered import Estimate, Sums, bootstrapped, robust
from modelyard.evidence.design import COUNTED, Design
from modelyard.evidence.discordance import exact_interval, exact_p, score_interval, score_p
from modelyard.evidence.outcomes import Table


def estimate(table: Table, design: Design) -> Estimate:
    """Difference, interval and p-value of the claim, all at `design.alpha_final`.

    Args:
        table: At least one item.
        design: With a method that `chosen_method` let pass; not "auto".
    """
    if design.method in COUNTED:
        return _counted(table, design)
    difference_g, weight_g = table.cluster_sums()
    sums = Sums(difference_g=difference_g, weight_g=weight_g)
    if design.method == "cluster_robust":
        return robust(sums, design.margin, design.alpha_final)
    return bootstrapped(sums, design.margin, design.alpha_final, design.bootstrap, design.seed)


def _counted(table: Table, design: Design) -> Estimate:
    gap, n, alpha = table.difference_n, len(table.weight_n), design.alpha_final
    wins, losses = int(np.count_nonzero(gap == 1)), int(np.count_nonzero(gap == -1))
    if design.method == "tango_score":
        p, ci = score_p(wins, losses, n, design.margin), score_interval(wins, losses, n, alpha)
    else:
        p, ci = exact_p(wins, losses), exact_interval(wins, losses, n, alpha)
    delta, share = (wins - losses) / n, (wins + losses) / n or 1 - alpha ** (1 / n)
    # All pairs discordant the same way: the error is that of one pair that might have been otherwise.
    error = math.sqrt(max(share - delta**2, 1 / n**2) / n)
    return Estimate(delta=delta, ci=ci, p_value=float(p), standard_error=error)
