"""A cascade: a cheap model answers first, and a dearer one is asked where that answer is not to be trusted.

What a model says of its own certainty is not a probability of being right. `Calibration` makes one of it, by
logistic regression on answers that were scored (Platt, 1999, with his smoothed targets); `Cascade` asks the
second model where it is expected to err less than the first, by more than its price is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from modelyard.core.digests import digest_json
from modelyard.core.errors import RoutingError
from modelyard.core.files import read_json, write_json
from modelyard.routing.answers import Floats
from modelyard.routing.deferral import LAMBDAS, Curve

SCHEMA = "modelyard.cascade/1"
_CLIP = 1e-6
_LEAST_ANSWERS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """P(wrong) = expit(intercept + slope * logit(confidence))."""

    intercept: float
    slope: float
    # How many answers it was fitted on.
    answers: int

    @classmethod
    def fit(cls, confidence_n: Floats, errors_n: Floats) -> Calibration:
        """From confidences and errors in [0, 1]; answers without a confidence are left out.

        Raises:
            RoutingError: There are fewer than twenty.
        """
        told = ~(np.isnan(confidence_n) | np.isnan(errors_n))
        if told.sum() < _LEAST_ANSWERS:
            raise RoutingError(
                f"{int(told.sum())} answers have a confidence and a score, and {_LEAST_ANSWERS} are needed; "
                "evaluate with `options: {logprobs: true}` on more examples"
            )
        x, errors = _logits(confidence_n[told]), errors_n[told]
        wrong, right = errors.sum(), (1.0 - errors).sum()
        # Platt's targets: as if one more of each had been seen
        targets = errors * (wrong + 1) / (wrong + 2) + (1 - errors) / (right + 2)

        def loss(values: Floats) -> tuple[float, Floats]:
            z = values[0] + values[1] * x
            gap = expit(z) - targets
            total = float(np.sum(np.logaddexp(0.0, z) - targets * z))
            return total, np.array([gap.sum(), (gap * x).sum()])

        found = minimize(loss, np.zeros(2), jac=True, method="BFGS")
        return cls(intercept=float(found.x[0]), slope=float(found.x[1]), answers=int(told.sum()))

    def wrong(self, confidence: Floats | float) -> Floats:
        """The probability that an answer of that confidence is wrong; NaN where there is no confidence."""
        return np.asarray(expit(self.intercept + self.slope * _logits(confidence)), np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """Who answers first, who is asked then, and when."""

    first: str
    then: str
    calibration: Calibration
    # Of an answer, in USD, and the mean error of the second model.
    first_usd: float
    then_usd: float
    then_error: float

    def escalates(
        self, confidence: float | None, lambda_usd: float = 0.0, *, then_error: float | None = None
    ) -> bool:
        """Whether the second model is asked as well; it is where the first told no confidence.

        Args:
            confidence: Of the first model's answer.
            lambda_usd: How much error one USD is worth.
            then_error: What is predicted of the second model for this prompt; by default its mean.
        """
        if confidence is None:
            return True
        error = self.then_error if then_error is None else then_error
        return bool(self.calibration.wrong(confidence) - error > lambda_usd * self.then_usd)

    def save(self, path: Path) -> None:
        """Write it whole, with its digest."""
        record = {"schema": SCHEMA, **asdict(self)}
        write_json(path, {**record, "digest": digest_json(record)})

    @classmethod
    def load(cls, path: Path) -> Cascade:
        """Read a cascade. Raises `RoutingError` where the file is not one, or was changed."""
        try:
            record: dict[str, Any] = dict(read_json(path))
            told, schema = record.pop("digest"), record["schema"]
            whole = told == digest_json(record) and schema == SCHEMA
            del record["schema"]
            calibration = Calibration(**record.pop("calibration"))
            cascade = cls(calibration=calibration, **record)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RoutingError(f"{path}: is no cascade ({error!r}); fit it again") from error
        if not whole:
            raise RoutingError(f"{path}: {schema} was changed since it was written, or is of another version")
        return cascade


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What both models did on the same prompts; [Q] each."""

    first_error_q: Floats
    then_error_q: Floats
    # Of the first model's answers; NaN where it told none.
    confidence_q: Floats
    # What is predicted of the second model.
    predicted_q: Floats


def cascade_curve(cascade: Cascade, played: Played, lambdas: Sequence[float] = LAMBDAS) -> Curve:
    """Quality over mean cost relative to `then_usd`, as its weight moves; the first is always paid."""
    gain_q = np.nan_to_num(cascade.calibration.wrong(played.confidence_q), nan=np.inf) - played.predicted_q
    points = []
    for weight in lambdas:  # of cost relative to the second model's
        asked_q = gain_q > weight
        error = np.where(asked_q, played.then_error_q, played.first_error_q).mean()
        points.append((cascade.first_usd / cascade.then_usd + asked_q.mean(), 1.0 - error))
    cost, quality = zip(*points, strict=True)
    return Curve.of(np.array(cost), np.array(quality))


def _logits(confidence: Floats | float) -> Floats:
    return np.asarray(logit(np.clip(confidence, _CLIP, 1.0 - _CLIP)), np.float64)
