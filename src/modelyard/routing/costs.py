"""What a model's answers cost in each cluster: means, drawn to the model's own where they are uncertain."""

from __future__ import annotations

import numpy as np

from modelyard.routing.answers import Floats, Integers


def cluster_costs(cost_usd_n: Floats, clusters_n: Integers, clusters: int, *, mean_usd: float) -> Floats:
    """The predicted cost of an answer in each cluster, [K].

    A one-way random-effects model (Searle, Casella and McCulloch, Variance Components, 1992, chapter 3):
    how far clusters differ is told from the spread of their means beyond what single answers explain, and
    each mean counts as far as it is known. Where clusters do not differ, or too little is known to say, it
    is the mean everywhere.

    Args:
        cost_usd_n: Of the model's answers; NaN where a cost is not known.
        clusters_n: Of their prompts.
        clusters: How many clusters there are.
        mean_usd: The model's mean cost.
    """
    told = ~np.isnan(cost_usd_n)
    cost, inside = cost_usd_n[told], clusters_n[told]
    counts = np.bincount(inside, minlength=clusters).astype(np.float64)
    seen, flat = int((counts > 0).sum()), np.full(clusters, mean_usd)
    if seen < 2 or len(cost) <= seen:
        return flat
    means = np.bincount(inside, weights=cost, minlength=clusters) / np.maximum(counts, 1.0)
    within = float(np.square(cost - means[inside]).sum() / (len(cost) - seen))
    between = float((counts * np.square(means - cost.mean())).sum() / (seen - 1))
    each = (len(cost) - float(np.square(counts).sum()) / len(cost)) / (seen - 1)
    spread = max(0.0, (between - within) / each)
    below = counts * spread + within
    share = np.where(below > 0, counts * spread / np.where(below > 0, below, 1.0), 0.0)
    return np.asarray(mean_usd + share * (means - mean_usd), np.float64)
