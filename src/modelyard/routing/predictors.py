"""What a router predicts of a prompt: by the cluster that it falls in, or by the prompts nearest to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelyard.routing.answers import Embeddings, Floats, Integers
from modelyard.routing.candidates import Candidate
from modelyard.routing.estimators.nearest import Neighbours
from modelyard.routing.fitting import Fit
from modelyard.routing.profiles import Profiles


class Predictor(Protocol):
    """Predicts errors; what it tells of one model never depends on the others."""

    @property
    def by_prompt(self) -> bool:
        """Whether two prompts of one cluster may be told apart."""
        ...

    def predict(self, embeddings_qd: Embeddings, clusters_q: Integers) -> tuple[Floats, Floats]:
        """Errors of each model on each prompt, and the deviations of what is not known; [M, Q] each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ByCluster:
    """Profiles: all prompts of a cluster are one."""

    models: Profiles

    @property
    def by_prompt(self) -> bool:
        """See `Predictor`."""
        return False

    def predict(self, embeddings_qd: Embeddings, clusters_q: Integers) -> tuple[Floats, Floats]:
        """See `Predictor`."""
        return self.models.psi_mk[:, clusters_q], self.models.sd_mk[:, clusters_q]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByNeighbours:
    """Each model's answers to the prompts nearest to a request."""

    neighbours: Neighbours

    @property
    def by_prompt(self) -> bool:
        """See `Predictor`."""
        return True

    def predict(self, embeddings_qd: Embeddings, clusters_q: Integers) -> tuple[Floats, Floats]:
        """See `Predictor`."""
        return self.neighbours.predict(embeddings_qd)


def predictor_of(candidate: Candidate, models: Profiles, pool: Fit) -> Predictor:
    """As the candidate says."""
    if candidate.nearest is None:
        return ByCluster(models=models)
    return ByNeighbours(neighbours=Neighbours.of(candidate.nearest, pool.embeddings_nd, models.errors_mn))
