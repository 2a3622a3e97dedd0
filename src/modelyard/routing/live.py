"""A router that is asked one prompt at a time, thousands of times a second.

Where a router predicts by cluster, what it decides hangs on the cluster and on what is asked for alone, so
that each decision is made once; what is left of a request is its embedding.
"""

from __future__ import annotations

import numpy as np

from modelyard.routing.decision import Decision, Request
from modelyard.routing.router import Router

#: Kinds of requests whose decisions are kept.
_MOST_REQUESTS = 1000


class LiveRouter:
    """Decides as `Router.route` does, with what was decided before. Not for several threads."""

    def __init__(self, router: Router) -> None:
        self.router = router
        centroids = router.clusters.centroids_kd
        self._centroids_dk = centroids.T
        self._lengths_k = np.einsum("kd,kd->k", centroids, centroids) / 2
        # By the identity of a request, which is kept so that it stays one; comparing requests takes longer.
        self._made: dict[int, tuple[Request, dict[int, Decision]]] = {}

    def route(self, text: str, request: Request) -> Decision:
        """The model for a prompt; give the same request object for requests that are alike.

        Raises:
            RoutingError: As `Router.route`.
        """
        if self.router.predictor.by_prompt or request.explore is not None:
            return self.router.route(text, request)
        embedding = self.router.embedder.embed([text])
        cluster = int((embedding @ self._centroids_dk - self._lengths_k).argmax())
        found = self._made.get(id(request))
        if found is None:
            if len(self._made) >= _MOST_REQUESTS:
                self._made.clear()
            found = self._made[id(request)] = (request, {})
        made = found[1]
        decision = made.get(cluster)
        if decision is None:
            (decision,) = self.router.route_batch(embedding, request)
            made[cluster] = decision
        return decision
