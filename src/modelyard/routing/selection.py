"""Choosing an estimator and its options on known models alone, by playing that some of them are new.

Some known models are held out and profiled from n answers, as a new one would be; what is predicted for
them on prompts that nothing was fitted on is held against what they did. Errors are centred by prompt
over the held-out models, because only differences between models matter to a choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Embeddings, Floats, Integers
from modelyard.routing.candidates import Candidate
from modelyard.routing.clusters import Clusters, fit_clusters
from modelyard.routing.estimators import Evidence, Known
from modelyard.routing.estimators.nearest import Nearest, Neighbours

#: The share of prompts that candidates are judged on, and how often models are divided and answers drawn.
_JUDGED, _FOLDS, _DRAWS = 0.4, 5, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """How candidates are judged: n answers a model."""

    answers: int
    seed: int


def relative_brier(predicted_mq: Floats, errors_mq: Floats) -> float:
    """The mean square of what is predicted of differences between models, minus what they were."""
    told = ~np.isnan(errors_mq)
    counts = np.maximum(told.sum(axis=0), 1)
    gap = np.where(told, predicted_mq - errors_mq, 0.0)
    gap = np.where(told, gap - gap.sum(axis=0) / counts, 0.0)
    return float(np.square(gap).sum() / max(told.sum(), 1))


def choose(
    candidates: Sequence[Candidate], errors_mn: Floats, embeddings_nd: Embeddings, trials: Trials
) -> tuple[Candidate, dict[str, float]]:
    """The candidate that predicts held-out known models best, and the relative Brier score of each.

    Args:
        candidates: Two with the same name are the same.
        errors_mn: Of known models to their prompts.
        embeddings_nd: Of these prompts.
        trials: How they are judged.

    Raises:
        RoutingError: There are fewer than two known models: none could be held out and others be left.
    """
    if len(errors_mn) < 2:
        raise RoutingError(
            f"{len(errors_mn)} known models: an estimator is chosen by holding some out; give two or more, "
            "or name the estimator"
        )
    chance = np.random.default_rng(trials.seed)
    order = chance.permutation(errors_mn.shape[1])
    judged, fitted = np.split(order, [int(_JUDGED * len(order))])
    spaces = {
        k: fit_clusters(embeddings_nd[fitted], k, trials.seed) for k in {c.clusters for c in candidates}
    }
    grounds = {k: _Ground.of(space, embeddings_nd, fitted, judged) for k, space in spaces.items()}
    splits = list(_splits(len(errors_mn), len(fitted), trials, chance))
    scores: dict[str, float] = {}
    for candidate in candidates:
        ground = grounds[candidate.clusters]
        losses = [
            relative_brier(
                _predicted(candidate, ground, errors_mn[:, fitted], split), errors_mn[split.held][:, judged]
            )
            for split in splits
        ]
        scores[candidate.name] = float(np.mean(losses))
    best = min(candidates, key=lambda c: scores[c.name])
    return best, scores


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """Which models are held out, and which prompts they answer."""

    held: Integers
    drawn: Integers


def _splits(models: int, prompts: int, trials: Trials, chance: np.random.Generator) -> Iterator[_Split]:
    for _ in range(_DRAWS):
        for held in np.array_split(chance.permutation(models), min(_FOLDS, models)):
            count = min(trials.answers, prompts)
            yield _Split(held=np.sort(held), drawn=chance.choice(prompts, count, replace=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """The prompts that are fitted and judged on: embeddings, and their clusters of one number."""

    fitted_nd: Embeddings
    judged_qd: Embeddings
    inside_n: Integers
    outside_q: Integers

    @classmethod
    def of(cls, space: Clusters, embeddings_nd: Embeddings, fitted: Integers, judged: Integers) -> _Ground:
        inside, outside = embeddings_nd[fitted], embeddings_nd[judged]
        return cls(
            fitted_nd=inside,
            judged_qd=outside,
            inside_n=space.assign(inside),
            outside_q=space.assign(outside),
        )


def _predicted(candidate: Candidate, ground: _Ground, errors_mn: Floats, split: _Split) -> Floats:
    """The held-out models' errors on the judged prompts, [held, Q]."""
    if candidate.nearest is not None:
        return _nearest(candidate.nearest, ground, errors_mn, split)
    rest = np.setdiff1d(np.arange(len(errors_mn)), split.held)
    estimator = candidate.fit(
        Known(errors_mn=errors_mn[rest], clusters_n=ground.inside_n, clusters=candidate.clusters)
    )
    profiles = [
        estimator.profile(
            Evidence(
                errors_n=errors_mn[model, split.drawn],
                clusters_n=ground.inside_n[split.drawn],
                columns_n=split.drawn,
            )
        ).psi_k
        for model in split.held
    ]
    return np.array(profiles)[:, ground.outside_q]


def _nearest(rule: Nearest, ground: _Ground, errors_mn: Floats, split: _Split) -> Floats:
    """As `_predicted`; a model that was asked none of the drawn prompts is half wrong."""
    drawn = errors_mn[np.ix_(split.held, split.drawn)]
    told = ~np.isnan(drawn).all(axis=1)
    predicted = np.full((len(drawn), len(ground.judged_qd)), 0.5)
    if told.any():
        neighbours = Neighbours.of(rule, ground.fitted_nd[split.drawn], drawn[told])
        predicted[told] = neighbours.predict(ground.judged_qd)[0]
    return predicted
