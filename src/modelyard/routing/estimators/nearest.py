"""K nearest neighbours: a prompt's error is what the model did on the validation prompts most like it.

Every prediction looks at all validation prompts, so that nothing is kept but the answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelyard.routing.answers import Embeddings, Floats

_CHUNK = 4096


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
