"""Fitting a router: what is asked for, what is kept of the known models, and what is chosen on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from modelyard.routing.answers import Embeddings, Floats, Integers
from modelyard.routing.candidates import COUNTS, Candidate, candidates
from modelyard.routing.clusters import Clusters, fit_clusters
from modelyard.routing.estimators import Estimator, Known
from modelyard.routing.learned_map import learn_clusters
from modelyard.routing.selection import Trials, choose

#: With fewer known models nothing is chosen on them.
_LEAST_TO_CHOOSE = 6
#: Prompts for each cluster, at least, where the number of clusters is chosen.
_PROMPTS_EACH = 10
#: Clusters where their number is not chosen.
_PLAIN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """How a router is fitted; what is None is chosen on the known models."""

    estimator: str | None = None
    clusters: int | None = None
    seed: int = 0
    # How many answers a new model is expected to have.
    answers: int = 400
    # Whether clusters are learned from where known models err; options are chosen on plain ones.
    learned: bool = False

    def fit_clusters(self, embeddings_nd: Embeddings, errors_mn: Floats, count: int) -> Clusters:
        """Of the fit prompts. Raises `RoutingError` where there are fewer different ones."""
        if self.learned:
            return learn_clusters(embeddings_nd, errors_mn, count, self.seed)
        return fit_clusters(embeddings_nd, count, self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What the known models answered when the router was fitted; never changed afterwards.

    Only prompts may be added behind the N known ones, where a router keeps the answers that later models
    gave to others.
    """

    examples: tuple[str, ...]
    # The prompts, [N or more, dimensions], and their clusters.
    embeddings_nd: Embeddings
    clusters_n: Integers
    # Of the known models, [M, N].
    errors_mn: Floats
    # The mean cost of the dearest known model.
    dearest_usd: float

    def estimator(self, candidate: Candidate) -> Estimator:
        """Fitted on the known models."""
        known = self.clusters_n[: self.errors_mn.shape[1]]
        return candidate.fit(Known(errors_mn=self.errors_mn, clusters_n=known, clusters=candidate.clusters))

    def shares(self, clusters: int) -> Floats:
        """The share of the known prompts in each cluster, [K]."""
        known = self.clusters_n[: self.errors_mn.shape[1]]
        return np.bincount(known, minlength=clusters) / len(known)

    def with_prompts(self, examples: Sequence[str], embeddings: Embeddings, clusters: Integers) -> Fit:
        """Also of prompts that no known model was asked."""
        return replace(
            self,
            examples=(*self.examples, *examples),
            embeddings_nd=np.concatenate([self.embeddings_nd, embeddings]),
            clusters_n=np.concatenate([self.clusters_n, clusters]),
        )


def chosen_candidate(errors_mn: Floats, embeddings_nd: Embeddings, options: RouterOptions) -> Candidate:
    """The estimator and the number of clusters: as asked for, else what predicts known models best.

    Of fewer than six known models too little can be learnt to choose: then `empirical_bayes` is taken,
    and twenty clusters, or one for each ten prompts where that is less. Of `nearest` the options are
    chosen, not the clusters.

    Raises:
        RoutingError: The estimator is not known.
    """
    most = max(1, len(embeddings_nd) // _PROMPTS_EACH)
    name, few = options.estimator or "low_rank", len(errors_mn) < _LEAST_TO_CHOOSE
    if name == "nearest":  # clusters decide nothing: they sum up, and tell costs
        counts: tuple[int, ...] = (options.clusters or min(_PLAIN, most),)
        if few:
            return Candidate(estimator=name, clusters=counts[0])
    elif options.estimator is not None and options.clusters is not None:
        return Candidate(estimator=options.estimator, clusters=options.clusters)
    elif few:
        return Candidate(
            estimator=options.estimator or "empirical_bayes", clusters=options.clusters or min(_PLAIN, most)
        )
    else:
        counts = (options.clusters,) if options.clusters else tuple(k for k in COUNTS if k <= most)
    tried = [*candidates(name, counts)]
    return choose(tried, errors_mn, embeddings_nd, Trials(answers=options.answers, seed=options.seed))[0]
