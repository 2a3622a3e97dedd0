"""The router: clusters of prompts, each model's errors in them, and the answers that they were learned from.

A model's profile is a function of its own answers and of the known models' answers when the router was
fitted. Models that come or go later change nothing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Answers, Embeddings, Floats, Integers
from modelyard.routing.candidates import Candidate
from modelyard.routing.clusters import Clusters
from modelyard.routing.decision import Candidates, Decision, Request, decide, interval
from modelyard.routing.embedders import Embedder
from modelyard.routing.estimators import Evidence
from modelyard.routing.explanation import Explanation, Neighbour, errors_on, nearest, standings
from modelyard.routing.facts import Facts, Traits
from modelyard.routing.feedback import learned
from modelyard.routing.fitting import Fit, RouterOptions, chosen_candidate
from modelyard.routing.predictors import Predictor, predictor_of
from modelyard.routing.profiles import Observed, Profile, Profiles, profiled
from modelyard.routing.record import Parts, parts_of, record_of
from modelyard.routing.stored import read_router, write_router

#: How far an embedding may be from that of the same prompt when the router was fitted.
_SAME = 1e-4
#: Prompts that are predicted at once.
_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Errors, the deviations of what is not known about them, and costs; [M, Q]."""

    errors_mq: Floats
    sd_mq: Floats
    cost_usd_mq: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """See the module."""

    embedder: Embedder
    # The estimator, which profiles models that come later, too.
    candidate: Candidate
    clusters: Clusters
    models: Profiles
    pool: Fit
    # What tells errors, made of the models: by cluster or by nearest prompts.
    predictor: Predictor
    # What is declared of models, by name, and what requests may ask of them.
    facts: Mapping[str, Facts]
    traits: Traits

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
        clusters = options.fit_clusters(embeddings, answers.errors_mn, candidate.clusters)
        pool = Fit(
            examples=answers.examples,
            embeddings_nd=embeddings,
            clusters_n=clusters.assign(embeddings),
            errors_mn=answers.errors_mn,
            dearest_usd=float(costs.max()),
        )
        estimator, columns = pool.estimator(candidate), np.arange(len(texts))
        models = Profiles.none(len(clusters), len(texts))
        for row, name in enumerate(answers.models):
            seen = Observed(
                name=name,
                evidence=Evidence(
                    errors_n=answers.errors_mn[row], clusters_n=pool.clusters_n, columns_n=columns
                ),
                cost_usd_n=answers.cost_usd_mn[row],
                mean_usd=float(costs[row]),
            )
            models = models.together_with(profiled(seen, estimator, models))
        parts = Parts(
            embedder=embedder, candidate=candidate, clusters=clusters, models=models, pool=pool, facts={}
        )
        return cls._of(parts)

    def onboard(
        self,
        name: str,
        errors: Mapping[str, float],
        *,
        cost_usd: float,
        costs_usd: Mapping[str, float] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> Router:
        """A router that also has a new model; the others' profiles are the very same.

        Args:
            name: The model.
            errors: By example, in [0, 1].
            cost_usd: The mean cost of its answers.
            costs_usd: What each answer cost, by example, as far as it is known: tells how costs differ by
                cluster. Without it an answer costs the same everywhere.
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
        told = costs_usd or {}
        dear = next((e for e, cost in told.items() if math.isinf(cost) or cost < 0), None)
        if dear is not None:
            raise RoutingError(
                f"the cost of {name!r} on {dear!r} is {told[dear]} USD; give a number of at least 0"
            )
        evidence, pool = self._evidence(errors, texts or {})
        seen = Observed(
            name=name,
            evidence=evidence,
            cost_usd_n=np.array([told.get(example, math.nan) for example in sorted(errors)]),
            mean_usd=cost_usd,
        )
        others = self.models.widened(len(pool.examples))
        new = profiled(seen, pool.estimator(self.candidate), others)
        return self._of(replace(self._parts(), models=others.together_with(new), pool=pool))

    def remove(self, name: str) -> Router:
        """A router without a model; its answers still tell of models that come later.

        Raises:
            RoutingError: There is no such model.
        """
        facts = {other: known for other, known in self.facts.items() if other != name}
        return self._of(replace(self._parts(), models=self.models.without(name), facts=facts))

    def learn(
        self,
        name: str,
        prompts: Sequence[str] | Embeddings,
        errors_n: Floats,
        *,
        half_life: float = 500.0,
        costs_usd_n: Floats | None = None,
    ) -> Router:
        """A router that has seen more answers of a model, in the order of time; see `feedback.learned`.

        Raises:
            RoutingError: There is no such model, a value is out of range, or errors are not told by cluster.
        """
        if self.predictor.by_prompt:
            raise RoutingError(
                f"{self.candidate.name} does not tell errors by cluster, which learning needs; fit with "
                "another --estimator, or onboard the model anew with all its answers"
            )
        clusters = self.clusters.assign(self._embedded(prompts))
        errors = np.asarray(errors_n, np.float64)
        costs = None if costs_usd_n is None else np.asarray(costs_usd_n, np.float64)
        models = learned(self.models, name, clusters, errors, half_life=half_life, costs_usd_n=costs)
        return self._of(replace(self._parts(), models=models))

    def declare(self, name: str, facts: Facts) -> Router:
        """A router that also knows these facts of a model, instead of what it knew of the same kinds.

        Raises:
            RoutingError: There is no such model.
        """
        self.models.row(name)
        known = self.facts.get(name, Facts()).updated(facts)
        return self._of(replace(self._parts(), facts={**self.facts, name: known}))

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order of their names."""
        return self.models.names

    def route(
        self,
        text: str,
        request: Request | None = None,
        *,
        candidate_models: Sequence[str] = (),
        lambda_: float | None = None,
    ) -> Decision:
        """The model for a prompt.

        Args:
            text: The prompt.
            request: What is asked for.
            candidate_models: Only these, instead of whom the request allows.
            lambda_: How much error the dearest model's price is worth, instead of what the request says.

        Raises:
            RoutingError: None may be chosen, or one is not known.
        """
        asked = request or Request()
        if candidate_models:
            asked = replace(asked, allow=tuple(candidate_models))
        if lambda_ is not None:
            asked = replace(asked, lambda_=lambda_)
        return self.route_batch([text], asked)[0]

    def profile(self, name: str) -> Profile:
        """What is known of a model in each cluster. Raises `RoutingError` where there is none."""
        row, models = self.models.row(name), self.models
        psi, sd = models.psi_mk[row], models.sd_mk[row]
        low, high = interval(psi, sd)
        return Profile(
            model=name, psi_k=psi, low_k=low, high_k=high, answers_k=models.answers_mk[row],
            cost_usd_k=models.cost_usd_mk[row],
        )  # fmt: skip

    def route_batch(
        self,
        prompts: Sequence[str] | Embeddings,
        request: Request | None = None,
        *,
        request_ids: Sequence[str] | None = None,
    ) -> list[Decision]:
        """The model for each prompt, given as text or as its embedding.

        Where a router predicts by cluster, one decision a cluster is made.

        Args:
            prompts: Texts or embeddings, [Q, dimensions].
            request: What is asked for, the same for all.
            request_ids: Of each, where new models are explored: every request has a lot of its own.

        Raises:
            RoutingError: As `route`, or several requests explore without ids of their own.
        """
        embeddings, asked = self._embedded(prompts), request or Request()
        clusters = self.clusters.assign(embeddings)
        if asked.explore is not None and len(embeddings) != 1:
            return self._explored(embeddings, clusters, asked, request_ids or ())
        if self.predictor.by_prompt or len(clusters) == 1:
            return list(self._decided(embeddings, clusters, asked))
        _, first, back = np.unique(clusters, return_index=True, return_inverse=True)
        made = list(self._decided(embeddings[first], clusters[first], asked))
        return [made[i] for i in back]

    def predicted_errors(self, prompts: Sequence[str] | Embeddings) -> Floats:
        """Each model's predicted error on each prompt, [M, Q], models in the order of `names`."""
        return self.predicted(prompts).errors_mq

    def predicted(self, prompts: Sequence[str] | Embeddings) -> Predicted:
        """What is predicted of each model on each prompt, models in the order of `names`."""
        embeddings = self._embedded(prompts)
        clusters = self.clusters.assign(embeddings)
        errors, deviations = self.predictor.predict(embeddings, clusters)
        return Predicted(errors_mq=errors, sd_mq=deviations, cost_usd_mq=self.models.cost_usd_mk[:, clusters])

    def mean_errors(self) -> Floats:
        """Each model's mean predicted error over the fit prompts, [M]."""
        shares = self.pool.shares(len(self.clusters))
        return np.array([psi_k @ shares for psi_k in self.models.psi_mk], np.float64)

    def explain(self, text: str, count: int, request: Request | None = None) -> Explanation:
        """The decision for a prompt with what it rests on, and the `count` fit prompts nearest to it.

        Raises:
            RoutingError: As `route`.
        """
        asked, embedding = request or Request(), self.embedder.embed([text])
        cluster = int(self.clusters.assign(embedding)[0])
        pool = next(self._candidates(embedding, np.array([cluster])))
        decision = decide(pool, asked, dearest_usd=self.pool.dearest_usd, cluster=cluster)
        return Explanation(
            decision=decision,
            standings=standings(pool, decision, asked, self.models.answers_mk[:, cluster]),
            neighbours=tuple(
                Neighbour(
                    example=example,
                    similarity=similarity,
                    errors=errors_on(self.names, self.models.errors_mn[:, column]),
                )
                for column, example, similarity in nearest(
                    embedding[0], self.pool.embeddings_nd, self.pool.examples, count
                )
            ),
        )

    def check_texts(self, texts: Mapping[str, str]) -> None:
        """Hold texts of fit prompts, by example, against those that the router was fitted on.

        Raises:
            RoutingError: One is another prompt.
        """
        if texts:
            self._checked(list(texts), list(texts.values()))

    def save(self, folder: Path) -> None:
        """Write the router whole. Raises `RoutingError` where something else lies there."""
        write_router(folder, *record_of(self._parts()))

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
            return cls._of(parts_of(record, tensors, embedder))
        except (KeyError, TypeError, ValueError) as error:
            raise RoutingError(
                f"{folder}: {type(error).__name__} {error}: its parts do not fit together; fit it again"
            ) from error

    def _embedded(self, prompts: Sequence[str] | Embeddings) -> Embeddings:
        return prompts if isinstance(prompts, np.ndarray) else self.embedder.embed(prompts)

    @classmethod
    def _of(cls, parts: Parts) -> Router:
        models = parts.models.by_column()
        return cls(
            embedder=parts.embedder,
            candidate=parts.candidate,
            clusters=parts.clusters,
            models=models,
            pool=parts.pool,
            predictor=predictor_of(parts.candidate, models, parts.pool),
            facts=parts.facts,
            traits=Traits.of(models.names, parts.facts, models.answers_mk.sum(axis=1)),
        )

    def _parts(self) -> Parts:
        return Parts(
            embedder=self.embedder,
            candidate=self.candidate,
            clusters=self.clusters,
            models=self.models,
            pool=self.pool,
            facts=self.facts,
        )

    def _candidates(self, embeddings_qd: Embeddings, clusters_q: Integers) -> Iterator[Candidates]:
        """What is predicted for each prompt, in turn."""
        for begin in range(0, len(clusters_q), _CHUNK):
            part = clusters_q[begin : begin + _CHUNK]
            errors, deviations = self.predictor.predict(embeddings_qd[begin : begin + _CHUNK], part)
            for place, cluster in enumerate(part.tolist()):
                yield Candidates(
                    names=self.names,
                    errors_m=errors[:, place],
                    sd_m=deviations[:, place],
                    cost_usd_m=self.models.cost_usd_mk[:, cluster],
                    traits=self.traits,
                )

    def _decided(
        self, embeddings_qd: Embeddings, clusters_q: Integers, request: Request
    ) -> Iterator[Decision]:
        dearest, pools = self.pool.dearest_usd, self._candidates(embeddings_qd, clusters_q)
        for pool, cluster in zip(pools, clusters_q.tolist(), strict=True):
            yield decide(pool, request, dearest_usd=dearest, cluster=cluster)

    def _explored(
        self, embeddings_qd: Embeddings, clusters_q: Integers, request: Request, ids: Sequence[str]
    ) -> list[Decision]:
        """Each with the lot of its own id."""
        if request.explore is None or len(ids) != len(clusters_q):
            raise RoutingError(
                f"{len(clusters_q)} requests explore with {len(ids)} ids; give each an id of its own"
            )
        lots = [replace(request, explore=replace(request.explore, request_id=each)) for each in ids]
        pools = self._candidates(embeddings_qd, clusters_q)
        return [
            decide(pool, lot, dearest_usd=self.pool.dearest_usd, cluster=cluster)
            for pool, lot, cluster in zip(pools, lots, clusters_q.tolist(), strict=True)
        ]

    def _evidence(self, errors: Mapping[str, float], texts: Mapping[str, str]) -> tuple[Evidence, Fit]:
        """Answers with their prompts' places, sorted by example.

        Where single prompts are predicted from, new ones are kept, and the pool is over them too.
        """
        examples, pool = sorted(errors), self.pool
        places = {example: column for column, example in enumerate(pool.examples)}
        columns = np.array([places.get(example, -1) for example in examples], np.int64)
        clusters = pool.clusters_n[columns]
        told = np.array([i for i, example in enumerate(examples) if example in texts], np.int64)
        lost = next((e for e in examples if e not in places and e not in texts), None)
        if lost is not None:
            raise RoutingError(f"the router was not fitted on {lost!r}; give its text")
        if told.size:
            embeddings = self._checked([examples[i] for i in told], [texts[examples[i]] for i in told])
            clusters[told] = self.clusters.assign(embeddings)
            if self.predictor.by_prompt:
                new = columns[told] < 0
                added = [examples[i] for i in told[new]]
                pool = pool.with_prompts(added, embeddings[new], clusters[told[new]])
                columns[told[new]] = len(places) + np.arange(len(added))
        values = np.array([errors[example] for example in examples], np.float64)
        return Evidence(errors_n=values, clusters_n=clusters, columns_n=columns), pool

    def _checked(self, examples: Sequence[str], texts: Sequence[str]) -> Embeddings:
        """The texts' embeddings; those of fit prompts must be what they were."""
        embeddings = self.embedder.embed(texts)
        places = {example: column for column, example in enumerate(self.pool.examples)}
        columns = np.array([places.get(example, -1) for example in examples], np.int64)
        gaps = np.abs(embeddings - self.pool.embeddings_nd[columns]).max(axis=1)
        other = np.flatnonzero((columns >= 0) & (gaps > _SAME))
        if other.size:
            raise RoutingError(
                f"{examples[int(other[0])]!r} is another prompt here than in the fit; "
                "give the answers to the same prompts, or other ids"
            )
        return embeddings


def _check_model(name: str, cost_usd: float, *, answers: int) -> None:
    if not answers:
        raise RoutingError(f"{name!r} has no answer; ask it, or leave it out")
    if not (math.isfinite(cost_usd) and cost_usd >= 0):
        raise RoutingError(
            f"the cost of {name!r} is {cost_usd} USD, and unknown is not free; give a number of at least 0"
        )
