"""The router: clusters of prompts, each model's errors in them, and the answers that they were learned from.

A model's profile is a function of its own answers and of the known models' answers when the router was
fitted. Models that come or go later change nothing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers, Embeddings, Floats, Integers
from modelyard.routing.clusters import Clusters, fit_clusters
from modelyard.routing.decision import Candidate, Decision, Request, decide
from modelyard.routing.embedders import Embedder, load_embedder
from modelyard.routing.estimators import Estimator, Evidence, Known
from modelyard.routing.estimators.counts import EmpiricalBayes, Laplace
from modelyard.routing.estimators.low_rank import LowRank, LowRankOptions
from modelyard.routing.estimators.transfer import Transfer
from modelyard.routing.stored import read_router, write_router

ESTIMATORS = ("low_rank", "transfer", "empirical_bayes", "laplace")
#: How far an embedding may be from that of the same prompt when the router was fitted.
_SAME = 1e-4
_RANK = 2
#: Estimators that learn from how known models differ.
_COMPARING = ("low_rank", "transfer")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """How a router is fitted."""

    clusters: int = 20
    estimator: str = "low_rank"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise RoutingError(
                f"the estimator {self.estimator!r} is not known; use one of {', '.join(ESTIMATORS)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of one model."""

    name: str
    # Its error in each cluster, the deviation of what is not known about it, and its answers there; [K].
    psi_k: Floats
    sd_k: Floats
    answers_k: Integers
    cost_usd: float
    # Its errors on the fit prompts, [N]; NaN where it was not asked.
    errors_n: Floats


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

    def estimator(self, options: RouterOptions) -> Estimator:
        """Fitted on the known models."""
        known = Known(errors_mn=self.errors_mn, clusters_n=self.clusters_n, clusters=options.clusters)
        if options.estimator == "low_rank":
            # With as many factors as known models less one, nothing would be left to tell noise from.
            return LowRank.fit(known, LowRankOptions(rank=min(_RANK, (len(self.errors_mn) - 1) // 2)))
        if options.estimator == "transfer":
            return Transfer.fit(known, spread=1.0, leftover=0.1)
        if options.estimator == "empirical_bayes":
            return EmpiricalBayes.fit(known, strength=20.0)
        return Laplace(clusters=options.clusters)


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
    options: RouterOptions
    clusters: Clusters
    models: tuple[Profile, ...]
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
        if len(answers.models) < 2 and options.estimator in _COMPARING:
            raise RoutingError(
                f"{options.estimator} learns from how known models differ, and there is one; give two or "
                "more, or name empirical_bayes"
            )
        costs = answers.mean_cost_usd()
        for name, cost, row in zip(answers.models, costs, answers.errors_mn, strict=True):
            _check_model(name, float(cost), answers=int((~np.isnan(row)).sum()))
        embeddings = embedder.embed(texts)
        clusters = fit_clusters(embeddings, options.clusters, options.seed)
        pool = Fit(
            examples=answers.examples,
            embeddings_nd=embeddings,
            clusters_n=clusters.assign(embeddings),
            errors_mn=answers.errors_mn,
            dearest_usd=float(costs.max()),
        )
        estimator = pool.estimator(options)
        columns = np.arange(len(texts))
        models = [
            _profile(
                (name, float(cost)),
                estimator,
                Evidence(errors_n=row, clusters_n=pool.clusters_n, columns_n=columns),
                pool,
                options.clusters,
            )
            for name, cost, row in zip(answers.models, costs, answers.errors_mn, strict=True)
        ]
        return cls(embedder=embedder, options=options, clusters=clusters, models=_sorted(models), pool=pool)

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
        if any(model.name == name for model in self.models):
            raise RoutingError(f"{name!r} is in the router already; remove it first, or give another name")
        _check_model(name, cost_usd, answers=len(errors))
        wrong = next((e for e, value in errors.items() if not 0 <= value <= 1), None)
        if wrong is not None:
            raise RoutingError(
                f"the error of {name!r} on {wrong!r} is {errors[wrong]}, not within 0 and 1; give 1 - score"
            )
        evidence = self._evidence(errors, texts or {})
        estimator = self.pool.estimator(self.options)
        new = _profile((name, cost_usd), estimator, evidence, self.pool, len(self.clusters))
        return replace(self, models=_sorted([*self.models, new]))

    def remove(self, name: str) -> Router:
        """A router without a model; its answers still tell of models that come later.

        Raises:
            RoutingError: There is no such model.
        """
        left = tuple(model for model in self.models if model.name != name)
        if len(left) == len(self.models):
            raise RoutingError(f"{name!r} is not in the router: {', '.join(self.names)}")
        return replace(self, models=left)

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order of their names."""
        return tuple(model.name for model in self.models)

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
        clusters = self.clusters.assign(self._embedded(prompts))
        return np.array([model.psi_k[clusters] for model in self.models])

    def explain(self, text: str, count: int) -> list[Neighbour]:
        """The fit prompts nearest to a text, with what each model made of them."""
        near = self.pool.embeddings_nd @ self._embedded([text])[0]
        return [
            Neighbour(
                example=self.pool.examples[i],
                similarity=float(near[i]),
                errors={m.name: float(m.errors_n[i]) for m in self.models if not math.isnan(m.errors_n[i])},
            )
            for i in np.argsort(-near, kind="stable")[:count].tolist()
        ]

    def save(self, folder: Path) -> None:
        """Write the router whole. Raises `RoutingError` where something else lies there."""
        record = {
            "embedder": {"name": self.embedder.name, "fingerprint": self.embedder.fingerprint},
            "options": {
                "clusters": self.options.clusters,
                "estimator": self.options.estimator,
                "seed": self.options.seed,
            },
            "dearest_usd": self.pool.dearest_usd,
            "models": [{"name": model.name, "cost_usd": model.cost_usd} for model in self.models],
            "examples": list(self.pool.examples),
        }
        shape = (len(self.models), len(self.clusters))
        tensors: dict[str, Any] = {
            "centroids": self.clusters.centroids_kd,
            "psi": np.array([m.psi_k for m in self.models], np.float64).reshape(shape),
            "sd": np.array([m.sd_k for m in self.models], np.float64).reshape(shape),
            "answers": np.array([m.answers_k for m in self.models], np.int64).reshape(shape),
            "errors": np.array([m.errors_n for m in self.models], np.float64).reshape(shape[0], -1)
            if self.models
            else np.zeros((0, len(self.pool.examples))),
            "known_errors": self.pool.errors_mn,
            "prompts": self.pool.embeddings_nd,
            "prompt_clusters": self.pool.clusters_n,
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
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RoutingError(
                f"{folder / 'router.json'}: {type(error).__name__} {error}: its parts do not fit together; "
                "fit the router again"
            ) from error
        except RoutingError as error:
            raise RoutingError(f"{folder}: {error}") from error

    def _embedded(self, prompts: Sequence[str] | Embeddings) -> Embeddings:
        return prompts if isinstance(prompts, np.ndarray) else self.embedder.embed(prompts)

    def _decide(self, cluster: int, request: Request) -> Decision:
        candidates = [
            Candidate(
                name=m.name, error=float(m.psi_k[cluster]), sd=float(m.sd_k[cluster]), cost_usd=m.cost_usd
            )
            for m in self.models
        ]
        return decide(candidates, request, dearest_usd=self.pool.dearest_usd, cluster=cluster)

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


def _check_model(name: str, cost_usd: float, *, answers: int) -> None:
    if not answers:
        raise RoutingError(f"{name!r} has no answer; ask it, or leave it out")
    if not (math.isfinite(cost_usd) and cost_usd >= 0):
        raise RoutingError(
            f"the cost of {name!r} is {cost_usd} USD, and unknown is not free; give a number of at least 0"
        )


def _profile(
    model: tuple[str, float], estimator: Estimator, evidence: Evidence, pool: Fit, clusters: int
) -> Profile:
    """Of a model by name and cost."""
    estimate = estimator.profile(evidence)
    _, answers = evidence.counts(clusters)
    errors = np.full(len(pool.examples), np.nan)
    seen = evidence.columns_n >= 0
    errors[evidence.columns_n[seen]] = evidence.errors_n[seen]
    return Profile(
        name=model[0],
        psi_k=estimate.psi_k,
        sd_k=estimate.sd_k,
        answers_k=answers.astype(np.int64),
        cost_usd=model[1],
        errors_n=errors,
    )


def _sorted(models: Sequence[Profile]) -> tuple[Profile, ...]:
    return tuple(sorted(models, key=lambda model: model.name))


def _read(record: Mapping[str, Any], tensors: Mapping[str, Any], embedder: Embedder | None) -> Router:
    given, wanted = embedder or load_embedder(record["embedder"]["name"]), record["embedder"]
    if given.fingerprint != wanted["fingerprint"]:
        raise RoutingError(
            f"the router was fitted with the embedder {wanted['name']} {wanted['fingerprint']}, not with "
            f"{given.name} {given.fingerprint}; use that one, or fit the router again"
        )
    options, count = RouterOptions(**record["options"]), len(record["models"])
    prompts, clusters = len(record["examples"]), options.clusters
    shapes = {
        "centroids": (clusters, given.dimensions), "psi": (count, clusters), "sd": (count, clusters),
        "answers": (count, clusters), "errors": (count, prompts), "prompts": (prompts, given.dimensions),
        "prompt_clusters": (prompts,), "known_errors": (len(tensors["known_errors"]), prompts),
    }  # fmt: skip
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tensors[name].shape} where {shape} is needed")
    models = tuple(
        Profile(
            name=str(model["name"]),
            psi_k=tensors["psi"][i],
            sd_k=tensors["sd"][i],
            answers_k=tensors["answers"][i],
            cost_usd=float(model["cost_usd"]),
            errors_n=tensors["errors"][i],
        )
        for i, model in enumerate(record["models"])
    )
    pool = Fit(
        examples=tuple(record["examples"]),
        embeddings_nd=tensors["prompts"],
        clusters_n=tensors["prompt_clusters"],
        errors_mn=tensors["known_errors"],
        dearest_usd=float(record["dearest_usd"]),
    )
    return Router(
        embedder=given,
        options=options,
        clusters=Clusters(centroids_kd=tensors["centroids"]),
        models=models,
        pool=pool,
    )
