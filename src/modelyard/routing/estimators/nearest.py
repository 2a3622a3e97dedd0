"""K nearest neighbours: a prompt's error is what the model did on the validation prompts most like it.

Every prediction looks at all validation prompts, so that nothing is kept but the answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Embeddings, Floats, Integers

_CHUNK = 1024
#: Similarities are told apart by so much of 1.
_STEPS = 1e5


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The mean over k neighbours, with the model's own mean as so many more."""

    neighbours: int
    # How many answers the model's mean is worth.
    strength: float = 0.0

    def predict(self, errors_mn: Floats, validation_nd: Embeddings, queries_qd: Embeddings) -> Floats:
        """Each model's error on each prompt, [M, Q], from answers to validation prompts, [M, N]."""
        told = ~np.isnan(errors_mn)
        plain = np.where(told, errors_mn, 0.0)
        means = plain.sum(axis=1) / np.maximum(told.sum(axis=1), 1)
        k = min(self.neighbours, errors_mn.shape[1])
        predicted = np.empty((len(errors_mn), len(queries_qd)))
        for begin in range(0, len(queries_qd), _CHUNK):
            near = queries_qd[begin : begin + _CHUNK] @ validation_nd.T
            chosen = np.argpartition(-near, k - 1, axis=1)[:, :k]
            sums, counts = plain[:, chosen].sum(axis=2), told[:, chosen].sum(axis=2)
            below = counts + self.strength
            shrunk = (sums + self.strength * means[:, None]) / np.where(below > 0, below, 1.0)
            predicted[:, begin : begin + _CHUNK] = np.where(below > 0, shrunk, means[:, None])
        return predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Models that answered the same prompts."""

    # Their places among all models, [m], the prompts' among all prompts, [n], errors [m, n], and means [m].
    rows_m: Integers
    columns_n: Integers
    errors_mn: Floats
    means_m: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What is predicted of each model by its own answers alone: other models change nothing of it.

    Unlike `Nearest.predict`, which takes the neighbours among all prompts and loses those that a model was
    not asked, each model's are taken among the prompts that it has answered.
    """

    rule: Nearest
    prompts_nd: Embeddings
    models: int
    asked: tuple[_Asked, ...]

    @classmethod
    def of(cls, rule: Nearest, prompts_nd: Embeddings, errors_mn: Floats) -> Neighbours:
        """From errors of [M, N], NaN where a model was not asked; each model has an answer."""
        told = ~np.isnan(errors_mn)
        groups: dict[bytes, list[int]] = {}
        for row, mask in enumerate(told):
            groups.setdefault(mask.tobytes(), []).append(row)
        asked = []
        for members in groups.values():
            rows, columns = np.array(members, np.int64), np.flatnonzero(told[members[0]])
            errors = errors_mn[np.ix_(rows, columns)]
            asked.append(
                _Asked(rows_m=rows, columns_n=columns, errors_mn=errors, means_m=errors.mean(axis=1))
            )
        return cls(rule=rule, prompts_nd=prompts_nd, models=len(errors_mn), asked=tuple(asked))

    def predict(self, queries_qd: Embeddings) -> tuple[Floats, Floats]:
        """Errors and the deviations of what is not known about them, [M, Q] each."""
        errors = np.empty((self.models, len(queries_qd)))
        deviations = np.empty_like(errors)
        for begin in range(0, len(queries_qd), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            near = _ranked(queries_qd[part] @ self.prompts_nd.T)
            for each in self.asked:
                k = min(self.rule.neighbours, len(each.columns_n))
                own = near[:, each.columns_n]
                chosen = np.argpartition(own, len(each.columns_n) - k, axis=1)[:, -k:]
                total = k + self.rule.strength
                sums = each.errors_mn[:, chosen].sum(axis=2)
                psi = (sums + self.rule.strength * each.means_m[:, None]) / total
                errors[each.rows_m, part] = psi
                deviations[each.rows_m, part] = np.sqrt(_smooth(psi, total) / (total + 1.0))
        return errors, deviations


def _ranked(near_qn: Embeddings) -> Integers:
    """Similarities as whole numbers, no two of a prompt equal: of equals the first prompt is nearer.

    Rounded, because the same prompt's similarity depends in its last digits on how many are asked at once.
    """
    count = near_qn.shape[1]
    ranked: Integers = np.rint(near_qn * _STEPS).astype(np.int64) * count
    return ranked + np.arange(count - 1, -1, -1)


def _smooth(psi: Floats, total: float) -> Floats:
    """The variance of one answer, never none: that few neighbours agree does not make it certain."""
    rate = (psi * total + 1.0) / (total + 2.0)
    return rate * (1 - rate)
