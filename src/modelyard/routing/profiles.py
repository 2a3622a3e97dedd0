"""What is known of each model of a router: one row a model, in the order of their names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Floats, Integers
from modelyard.routing.costs import cluster_costs
from modelyard.routing.estimators import Estimator, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model in each of K clusters."""

    model: str
    # Its predicted error and the ends of a 90 % interval of it, [K].
    psi_k: Floats
    low_k: Floats
    high_k: Floats
    # The answers that it has given, and what one is predicted to cost, [K].
    answers_k: Integers
    cost_usd_k: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """M models, K clusters, N prompts."""

    names: tuple[str, ...]
    # Errors by cluster, the deviations of what is not known about them, and answers there; [M, K].
    psi_mk: Floats
    sd_mk: Floats
    answers_mk: Integers
    # Mean cost of an answer, [M], and what it is predicted to be in each cluster, [M, K].
    cost_usd_m: Floats
    cost_usd_mk: Floats
    # Errors on the prompts, [M, N]; NaN where a model was not asked.
    errors_mn: Floats

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def none(cls, clusters: int, prompts: int) -> Profiles:
        """No model."""
        empty = np.zeros((0, clusters))
        return cls(
            names=(),
            psi_mk=empty,
            sd_mk=empty,
            answers_mk=empty.astype(np.int64),
            cost_usd_m=np.zeros(0),
            cost_usd_mk=empty,
            errors_mn=np.zeros((0, prompts)),
        )

    def row(self, name: str) -> int:
        """Where a model stands. Raises `RoutingError` where it does not."""
        if name not in self.names:
            raise RoutingError(f"{name!r} is not in the router: {', '.join(self.names)}")
        return self.names.index(name)

    def without(self, name: str) -> Profiles:
        """All others. Raises `RoutingError` where there is no such model."""
        return self._taken(np.delete(np.arange(len(self)), self.row(name)))

    def widened(self, prompts: int) -> Profiles:
        """Over more prompts, of which no model was asked the new ones."""
        if prompts == self.errors_mn.shape[1]:
            return self
        more = np.full((len(self), prompts - self.errors_mn.shape[1]), np.nan)
        return replace(self, errors_mn=np.concatenate([self.errors_mn, more], axis=1))

    def by_column(self) -> Profiles:
        """The same, with each cluster's column in one piece of memory: what a decision reads."""
        return replace(
            self,
            psi_mk=np.asfortranarray(self.psi_mk),
            sd_mk=np.asfortranarray(self.sd_mk),
            cost_usd_mk=np.asfortranarray(self.cost_usd_mk),
        )

    def together_with(self, other: Profiles) -> Profiles:
        """The models of both, by name."""
        joined = Profiles(
            names=(*self.names, *other.names),
            psi_mk=np.concatenate([self.psi_mk, other.psi_mk]),
            sd_mk=np.concatenate([self.sd_mk, other.sd_mk]),
            answers_mk=np.concatenate([self.answers_mk, other.answers_mk]),
            cost_usd_m=np.concatenate([self.cost_usd_m, other.cost_usd_m]),
            cost_usd_mk=np.concatenate([self.cost_usd_mk, other.cost_usd_mk]),
            errors_mn=np.concatenate([self.errors_mn, other.errors_mn]),
        )
        return joined._taken(np.array(sorted(range(len(joined)), key=joined.names.__getitem__), np.int64))

    def _taken(self, rows: Integers) -> Profiles:
        return Profiles(
            names=tuple(self.names[int(row)] for row in rows),
            psi_mk=self.psi_mk[rows],
            sd_mk=self.sd_mk[rows],
            answers_mk=self.answers_mk[rows],
            cost_usd_m=self.cost_usd_m[rows],
            cost_usd_mk=self.cost_usd_mk[rows],
            errors_mn=self.errors_mn[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A model as it was seen: its answers, what each cost, and its mean cost."""

    name: str
    evidence: Evidence
    # Of the answers, [n]; NaN where a cost is not known.
    cost_usd_n: Floats
    mean_usd: float


def profiled(model: Observed, estimator: Estimator, others: Profiles) -> Profiles:
    """One model; `others` have the shape."""
    evidence, clusters = model.evidence, others.psi_mk.shape[1]
    estimate = estimator.profile(evidence)
    _, answers = evidence.counts(clusters)
    errors = np.full((1, others.errors_mn.shape[1]), np.nan)
    seen = evidence.columns_n >= 0
    errors[0, evidence.columns_n[seen]] = evidence.errors_n[seen]
    costs = cluster_costs(model.cost_usd_n, evidence.clusters_n, clusters, mean_usd=model.mean_usd)
    return Profiles(
        names=(model.name,),
        psi_mk=estimate.psi_k[None],
        sd_mk=estimate.sd_k[None],
        answers_mk=answers[None].astype(np.int64),
        cost_usd_m=np.array([model.mean_usd]),
        cost_usd_mk=costs[None],
        errors_mn=errors,
    )
