"""The router: clusters of prompts, each model's errors in them, and the answers that they were learned from.

A model's profile is a function of its own answers and of the known models' answers when the router was
fitted. Models that come or go later change nothing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers, Embeddings, Floats, Integers
from modelyard.routing.candidates import COUNTS, Candidate, candidates
from modelyard.routing.clusters import Clusters, fit_clusters
from modelyard.routing.decision import Candidates, Decision, Request, decide
from modelyard.routing.embedders import Embedder, load_embedder
from modelyard.routing.estimators import Estimator, Evidence, Known
from modelyard.routing.profiles import Profiles
from modelyard.routing.selection import Trials, choose
from modelyard.routing.stored import read_router, write_router

#: How far an embedding may be from that of the same prompt when the router was fitted.
_SAME = 1e-4
#: With fewer known models nothing is chosen on them.
_LEAST_TO_CHOOSE = 6
#: Prompts for each cluster, at least, where the number of clusters is chosen.
_PROMPTS_EACH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """How a router is fitted; what is None is chosen on the known models."""

    estimator: str | None = None
    clusters: int | None = None
    seed: int = 0
    # How many answers a new model is expected to have.
    answers: int = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What the known models answered when the router was fitted; never changed afterwards."""

    examples: tuple[str, ...]
    # The prompts, [N, dimensions], and their clusters, [N].
    embeddings_nd: Embeddings
    clusters_n: Integers
    # Of the known models, [M, N].
    errors_mn: Floats
    # The mean cost of the dearest known model.
    dearest_usd: float

    def estimator(self, candidate: Candidate) -> Estimator:
        """Fitted on the known models."""
        return candidate.fit(
            Known(errors_mn=self.errors_mn, clusters_n=self.clusters_n, clusters=candidate.clusters)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A fit prompt near a request, and each model's error on it (models that were asked)."""

    example: str
    similarity: float
    errors: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """See the module."""

    embedder: Embedder
    # The estimator, which profiles models that come later, too.
    candidate: Candidate
    clusters: Clusters
    models: Profiles
    pool: Fit

    @classmethod
    def fit(
        cls, answers: Answers, texts: Sequence[str], embedder: Embedder, options: RouterOptions
    ) -> Router:
        """Cluster the prompts and profile every model.

        Args:
            answers: Of the known models.
            texts: The prompts, as `answers.examples` names them.
            embedder: Makes vectors of prompts, now and of every request.
            options: How to fit.

        Raises:
            RoutingError: Texts and answers do not belong together, a model has no answer or no price, or
                there are fewer different prompts than clusters.
        """
        if len(texts) != len(answers.examples) or not answers.models:
            raise RoutingError(
                f"{len(texts)} texts for {len(answers.examples)} prompts of {len(answers.models)} models; "
                "give one text a prompt and at least one model"
            )
        costs = answers.mean_cost_usd()
        for name, cost, row in zip(answers.models, costs, answers.errors_mn, strict=True):
            _check_model(name, float(cost), answers=int((~np.isnan(row)).sum()))
        embeddings = embedder.embed(texts)
        candidate = chosen_candidate(answers.errors_mn, embeddings, options)
        clusters = fit_clusters(embeddings, candidate.clusters, options.seed)
        pool = Fit(
            examples=answers.examples,
            embeddings_nd=embeddings,
            clusters_n=clusters.assign(embeddings),
            errors_mn=answers.errors_mn,
            dearest_usd=float(costs.max()),
        )
        estimator, columns = pool.estimator(candidate), np.arange(len(texts))
        models = _none(len(clusters), len(texts))
        for name, cost, row in zip(answers.models, costs, answers.errors_mn, strict=True):
            evidence = Evidence(errors_n=row, clusters_n=pool.clusters_n, columns_n=columns)
            models = models.together_with(_profile((name, float(cost)), estimator, evidence, models))
        return cls(embedder=embedder, candidate=candidate, clusters=clusters, models=models, pool=pool)

    def onboard(
        self,
        name: str,
        errors: Mapping[str, float],
        *,
        cost_usd: float,
        texts: Mapping[str, str] | None = None,
    ) -> Router:
        """A router that also has a new model; the others' profiles are the very same.

        Args:
            name: The model.
            errors: By example, in [0, 1].
            cost_usd: The mean cost of its answers.
            texts: The prompts by example: needed for those that the router was not fitted on, and held
                against the others, so that answers to other prompts are not taken for answers to these.

        Raises:
            RoutingError: The model is there already, or its answers cannot be used.
        """
        if name in self.names:
            raise RoutingError(f"{name!r} is in the router already; remove it first, or give another name")
        _check_model(name, cost_usd, answers=len(errors))
        wrong = next((e for e, value in errors.items() if not 0 <= value <= 1), None)
        if wrong is not None:
            raise RoutingError(
                f"the error of {name!r} on {wrong!r} is {errors[wrong]}, not within 0 and 1; give 1 - score"
            )
        evidence = self._evidence(errors, texts or {})
        new = _profile((name, cost_usd), self.pool.estimator(self.candidate), evidence, self.models)
        return replace(self, models=self.models.together_with(new))

    def remove(self, name: str) -> Router:
        """A router without a model; its answers still tell of models that come later.

        Raises:
            RoutingError: There is no such model.
        """
        return replace(self, models=self.models.without(name))

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order of their names."""
        return self.models.names

    def route(self, text: str, request: Request | None = None) -> Decision:
        """The model for a prompt. Raises `RoutingError` where none may be chosen."""
        return self.route_batch([text], request)[0]

    def route_batch(
        self, prompts: Sequence[str] | Embeddings, request: Request | None = None
    ) -> list[Decision]:
        """The model for each prompt, given as text or as its embedding; one decision a cluster is made."""
        clusters = self.clusters.assign(self._embedded(prompts))
        made = {int(k): self._decide(int(k), request or Request()) for k in np.unique(clusters)}
        return [made[int(k)] for k in clusters]

    def predicted_errors(self, prompts: Sequence[str] | Embeddings) -> Floats:
        """Each model's predicted error on each prompt, [M, Q], models in the order of `names`."""
        return self.models.psi_mk[:, self.clusters.assign(self._embedded(prompts))]

    def explain(self, text: str, count: int) -> list[Neighbour]:
        """The fit prompts nearest to a text, with what each model made of them."""
        near = self.pool.embeddings_nd @ self._embedded([text])[0]
        return [
            Neighbour(
                example=self.pool.examples[i],
                similarity=float(near[i]),
                errors={
                    name: error
                    for name, error in zip(self.names, self.models.errors_mn[:, i].tolist(), strict=True)
                    if not math.isnan(error)
                },
            )
            for i in np.argsort(-near, kind="stable")[:count].tolist()
        ]

    def save(self, folder: Path) -> None:
        """Write the router whole. Raises `RoutingError` where something else lies there."""
        models, pool = self.models, self.pool
        record = {
            "embedder": {"name": self.embedder.name, "fingerprint": self.embedder.fingerprint},
            "candidate": asdict(self.candidate),
            "dearest_usd": pool.dearest_usd,
            "models": list(models.names),
            "examples": list(pool.examples),
        }
        tensors: dict[str, Any] = {
            "centroids": self.clusters.centroids_kd,
            "psi": models.psi_mk,
            "sd": models.sd_mk,
            "answers": models.answers_mk,
            "cost_usd": models.cost_usd_m,
            "errors": models.errors_mn,
            "known_errors": pool.errors_mn,
            "prompts": pool.embeddings_nd,
            "prompt_clusters": pool.clusters_n,
        }
        write_router(folder, record, tensors)

    @classmethod
    def load(cls, folder: Path, embedder: Embedder | None = None) -> Router:
        """Read a router.

        Args:
            folder: Where it was saved.
            embedder: The one it was fitted with; by default it is found by its name.

        Raises:
            RoutingError: The files are damaged or of another version, or the embedder is another one.
        """
        record, tensors = read_router(folder)
        try:
            return _read(record, tensors, embedder)
        except (KeyError, TypeError, ValueError) as error:
            raise RoutingError(
                f"{folder}: {type(error).__name__} {error}: its parts do not fit together; fit it again"
            ) from error

    def _embedded(self, prompts: Sequence[str] | Embeddings) -> Embeddings:
        return prompts if isinstance(prompts, np.ndarray) else self.embedder.embed(prompts)

    def _decide(self, cluster: int, request: Request) -> Decision:
        pool = Candidates(
            names=self.names,
            errors_m=self.models.psi_mk[:, cluster],
            sd_m=self.models.sd_mk[:, cluster],
            cost_usd_m=self.models.cost_usd_m,
        )
        return decide(pool, request, dearest_usd=self.pool.dearest_usd, cluster=cluster)

    def _evidence(self, errors: Mapping[str, float], texts: Mapping[str, str]) -> Evidence:
        """Answers with their prompts' places, sorted by example."""
        examples = sorted(errors)
        places = {example: column for column, example in enumerate(self.pool.examples)}
        columns = np.array([places.get(example, -1) for example in examples], np.int64)
        clusters = self.pool.clusters_n[columns]
        told = [i for i, example in enumerate(examples) if example in texts]
        lost = next((e for e in examples if e not in places and e not in texts), None)
        if lost is not None:
            raise RoutingError(f"the router was not fitted on {lost!r}; give its text")
        if told:
            embeddings = self.embedder.embed([texts[examples[i]] for i in told])
            clusters[told] = self.clusters.assign(embeddings)
            gaps = np.abs(embeddings - self.pool.embeddings_nd[columns[told]]).max(axis=1)
            other = np.flatnonzero((columns[told] >= 0) & (gaps > _SAME))
            if other.size:
                raise RoutingError(
                    f"{examples[told[int(other[0])]]!r} is another prompt here than in the fit; "
                    "give the answers to the same prompts, or other ids"
                )
        values = np.array([errors[example] for example in examples], np.float64)
        return Evidence(errors_n=values, clusters_n=clusters, columns_n=columns)


def chosen_candidate(errors_mn: Floats, embeddings_nd: Embeddings, options: RouterOptions) -> Candidate:
    """The estimator and the number of clusters: as asked for, else what predicts known models best.

    Of fewer than six known models too little can be learnt to choose: then `empirical_bayes` is taken,
    and twenty clusters, or one for each ten prompts where that is less.

    Raises:
        RoutingError: The estimator is not known.
    """
    most = max(1, len(embeddings_nd) // _PROMPTS_EACH)
    if options.estimator is not None and options.clusters is not None:
        return Candidate(estimator=options.estimator, clusters=options.clusters)
    if len(errors_mn) < _LEAST_TO_CHOOSE:
        return Candidate(
            estimator=options.estimator or "empirical_bayes", clusters=options.clusters or min(20, most)
        )
    counts = (options.clusters,) if options.clusters else tuple(k for k in COUNTS if k <= most)
    tried = [*candidates(options.estimator or "low_rank", counts)]
    return choose(tried, errors_mn, embeddings_nd, Trials(answers=options.answers, seed=options.seed))[0]


def _check_model(name: str, cost_usd: float, *, answers: int) -> None:
    if not answers:
        raise RoutingError(f"{name!r} has no answer; ask it, or leave it out")
    if not (math.isfinite(cost_usd) and cost_usd >= 0):
        raise RoutingError(
            f"the cost of {name!r} is {cost_usd} USD, and unknown is not free; give a number of at least 0"
        )


def _none(clusters: int, prompts: int) -> Profiles:
    """No model."""
    empty = np.zeros((0, clusters))
    return Profiles(
        names=(), psi_mk=empty, sd_mk=empty, answers_mk=empty.astype(np.int64), cost_usd_m=np.zeros(0),
        errors_mn=np.zeros((0, prompts)),
    )  # fmt: skip


def _profile(
    model: tuple[str, float], estimator: Estimator, evidence: Evidence, others: Profiles
) -> Profiles:
    """Of a model by name and cost; `others` have the shape."""
    estimate = estimator.profile(evidence)
    _, answers = evidence.counts(others.psi_mk.shape[1])
    errors = np.full((1, others.errors_mn.shape[1]), np.nan)
    seen = evidence.columns_n >= 0
    errors[0, evidence.columns_n[seen]] = evidence.errors_n[seen]
    return Profiles(
        names=(model[0],),
        psi_mk=estimate.psi_k[None],
        sd_mk=estimate.sd_k[None],
        answers_mk=answers[None].astype(np.int64),
        cost_usd_m=np.array([model[1]]),
        errors_mn=errors,
    )


def _read(record: Mapping[str, Any], tensors: Mapping[str, Any], embedder: Embedder | None) -> Router:
    given, wanted = embedder or load_embedder(record["embedder"]["name"]), record["embedder"]
    if given.fingerprint != wanted["fingerprint"]:
        raise RoutingError(
            f"the router was fitted with the embedder {wanted['name']} {wanted['fingerprint']}, not with "
            f"{given.name} {given.fingerprint}; use that one, or fit the router again"
        )
    candidate = Candidate(**record["candidate"])
    count, prompts, clusters = len(record["models"]), len(record["examples"]), candidate.clusters
    shapes = {
        "centroids": (clusters, given.dimensions), "psi": (count, clusters), "sd": (count, clusters),
        "answers": (count, clusters), "cost_usd": (count,), "errors": (count, prompts),
        "prompts": (prompts, given.dimensions), "prompt_clusters": (prompts,),
        "known_errors": (len(tensors["known_errors"]), prompts),
    }  # fmt: skip
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tensors[name].shape} where {shape} is needed")
    return Router(
        embedder=given,
        candidate=candidate,
        clusters=Clusters(centroids_kd=tensors["centroids"]),
        models=Profiles(
            names=tuple(record["models"]),
            psi_mk=tensors["psi"],
            sd_mk=tensors["sd"],
            answers_mk=tensors["answers"],
            cost_usd_m=tensors["cost_usd"],
            errors_mn=tensors["errors"],
        ),
        pool=Fit(
            examples=tuple(record["examples"]),
            embeddings_nd=tensors["prompts"],
            clusters_n=tensors["prompt_clusters"],
            errors_mn=tensors["known_errors"],
            dearest_usd=float(record["dearest_usd"]),
        ),
    )
