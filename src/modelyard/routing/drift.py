"""Whether recent prompts are still like those that a router was fitted on.

Two questions, each a test at half of the level by Holm's rule: do prompts fall into the clusters in other
shares, and are they less like any fit prompt than fit prompts are like one another? The router's own clusters
were fitted to one of the two samples, which falls into them otherwise than new prompts of the same mix do. So
the first question is asked of as many clusters that are fitted to both samples together, blind to which is
which: then any division of the prompts into two samples is as likely as the one seen, whatever the clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Embeddings, Floats, Integers
from modelyard.routing.clusters import fit_clusters
from modelyard.routing.router import Router

_DRAWS, _CHUNK = 4000, 1024
_LEAST_PROMPTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What was found; p-values are not yet corrected, `alarm` is."""

    prompts: int
    # Prompts of the fit and recent ones in each cluster of the router, [K].
    fit_k: Integers
    recent_k: Integers
    # That shares of common clusters differ so much by chance, and that recent prompts are so far off.
    p_mix: float
    p_far: float
    alarm: bool
    # The mean similarity to the nearest fit prompt: of recent ones, and of fit ones to others.
    recent_similarity: float
    fit_similarity: float
    # Clusters with recent prompts, by model that has no answer there.
    unsupported: dict[str, tuple[int, ...]]

    @property
    def p_value(self) -> float:
        """That of both together, by Holm's rule."""
        return min(1.0, 2.0 * min(self.p_mix, self.p_far))


def find_drift(router: Router, embeddings_qd: Embeddings, *, alpha: float = 0.05, seed: int = 0) -> Drift:
    """Hold recent prompts, given as embeddings, against those of the fit.

    Raises:
        RoutingError: There are fewer than ten prompts, or no cluster to fall into.
    """
    if len(embeddings_qd) < _LEAST_PROMPTS:
        raise RoutingError(
            f"{len(embeddings_qd)} recent prompts tell nothing of a mix; give at least {_LEAST_PROMPTS}"
        )
    known = router.pool.errors_mn.shape[1]
    fit_nd, fit_clusters = router.pool.embeddings_nd[:known], router.pool.clusters_n[:known]
    count = len(router.clusters)
    fit_k = np.bincount(fit_clusters, minlength=count)
    recent_k = np.bincount(router.clusters.assign(embeddings_qd), minlength=count)
    fit_near, recent_near = (
        nearest_similarity(fit_nd, fit_nd, own=True),
        nearest_similarity(embeddings_qd, fit_nd),
    )
    p_mix = mix_p_value(*common_counts(fit_nd, embeddings_qd, count, seed), np.random.default_rng(seed))
    p_far = float(mannwhitneyu(recent_near, fit_near, alternative="less").pvalue)
    return Drift(
        prompts=len(embeddings_qd),
        fit_k=fit_k,
        recent_k=recent_k,
        p_mix=p_mix,
        p_far=p_far,
        alarm=min(p_mix, p_far) <= alpha / 2,
        recent_similarity=float(recent_near.mean()),
        fit_similarity=float(fit_near.mean()),
        unsupported={
            name: tuple(np.flatnonzero((answers_k == 0) & (recent_k > 0)).tolist())
            for name, answers_k in zip(router.names, router.models.answers_mk, strict=True)
            if ((answers_k == 0) & (recent_k > 0)).any()
        },
    )


def common_counts(
    fit_nd: Embeddings, recent_qd: Embeddings, count: int, seed: int
) -> tuple[Integers, Integers]:
    """Prompts of either sample in clusters that are fitted to both, blind to which is which; [K] each."""
    both = np.concatenate([fit_nd, recent_qd])
    # sorted by value: where a prompt stands must not tell its sample
    order = np.lexsort(both.T)
    near = np.empty(len(both), np.int64)
    near[order] = fit_clusters(both[order], count, seed).assign(both[order])
    first, second = np.split(near, [len(fit_nd)])
    return np.bincount(first, minlength=count), np.bincount(second, minlength=count)


def mix_p_value(fit_k: Integers, recent_k: Integers, chance: np.random.Generator) -> float:
    """That both samples come from one mix: a G-test whose null is drawn with both margins kept."""
    both_k, size = fit_k + recent_k, int(recent_k.sum())
    drawn_bk = chance.multivariate_hypergeometric(both_k, size, size=_DRAWS)
    found = _g(recent_k[None], both_k)[0]
    return float((1 + (_g(drawn_bk, both_k) >= found - 1e-9).sum()) / (_DRAWS + 1))


def nearest_similarity(queries_qd: Embeddings, fit_nd: Embeddings, *, own: bool = False) -> Floats:
    """The similarity of each query to its nearest fit prompt, [Q]; `own` leaves out the query itself."""
    best = np.empty(len(queries_qd))
    for begin in range(0, len(queries_qd), _CHUNK):
        near = queries_qd[begin : begin + _CHUNK] @ fit_nd.T
        if own:
            rows = np.arange(len(near))
            near[rows, begin + rows] = -np.inf
        best[begin : begin + _CHUNK] = near.max(axis=1)
    return best


def _g(recent_bk: Integers, both_k: Integers) -> Floats:
    """The log-likelihood ratio of two samples against one, [B]; the other sample is what is left of both."""
    share = recent_bk.sum(axis=1, keepdims=True) / both_k.sum()
    parts = [(recent_bk, both_k * share), (both_k - recent_bk, both_k * (1.0 - share))]
    total: Floats = sum(
        np.where(
            seen > 0, seen * np.log(np.where(seen > 0, seen, 1) / np.where(expected > 0, expected, 1)), 0.0
        ).sum(axis=1)
        for seen, expected in parts
    )
    return 2.0 * total
