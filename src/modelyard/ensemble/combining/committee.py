"""The committee: one pool of experts mixed in several ways, each with its own memory.

No single rule is best on every series: BOA follows a change fast with a short memory and is exact with a
long one, stacking uses how errors cancel, and where all that was learnt breaks, the median stands. The
committee runs them side by side; who is trusted is decided by a rule over their forecasts, which is the
caller's. All memories are multiples of one `beta`. Rows (leads, series) are independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.ensemble.combining.fitted import Moments, Nnls
from modelyard.ensemble.combining.lessons import Floats, Lesson, Rule, State, mixture
from modelyard.ensemble.combining.rules import Boa, InverseScore

MEMBERS = ("boa_short", "boa", "boa_long", "nnls", "nnls_long", "inverse_score", "median")
_JUDGE = 0.5  # the memory of the rule over the committee, in that of the pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """What the members said about one row each, and the truth that came."""

    forecast: Floats  # of the experts, finite, `(rows, experts)`
    awake: Floats  # 1 or 0, the same shape
    mixed: Floats  # of the members, `(rows, members)`
    scored: Floats  # 1 where the row counts for scores, `(rows, experts)`
    truth: Floats  # `(rows,)`


class Committee:
    """The members' rules and states.

    Args:
        beta: The memory, in (0, 1].
        experts: How many.
    """

    def __init__(self, beta: float, experts: int) -> None:
        logs = np.log(np.full(experts, max(experts, 2), dtype=float))
        block = (slice(0, experts),)
        self._rules: tuple[Rule, ...] = (
            Boa(longer(beta, 0.1), logs),
            Boa(beta, logs),
            Boa(longer(beta, 10.0), logs),
            Nnls(Moments(beta, block)),
            Nnls(Moments(longer(beta, 5.0), block)),
            InverseScore(beta),
        )

    def start(self, rows: int, experts: int) -> State:
        """Arrays of members that have learnt nothing."""
        return {
            f"{name}.{key}": array
            for name, rule in zip(MEMBERS, self._rules, strict=False)
            for key, array in rule.start((rows, experts)).items()
        }

    def weights(self, state: State, forecast: Floats, awake: Floats) -> Floats:
        """Each member's weights of the experts, a simplex over the awake, `(rows, members, experts)`."""
        found = [
            mixture(rule.log_weights(_own(state, name)), awake, forecast)[0]
            for name, rule in zip(MEMBERS, self._rules, strict=False)
        ]
        return np.stack([*found, median_weights(forecast, awake)], axis=1)

    def learn(self, state: State, ballot: Ballot, slope: Floats) -> None:
        """Teach every member by its own mixture.

        Args:
            state: Updated in place.
            ballot: What was issued.
            slope: Of the loss at each member's mixture, `(rows, members)`.
        """
        gap = ballot.forecast - ballot.truth[:, None]
        error = np.abs(gap)
        for place, rule in enumerate(self._rules):
            over = ballot.mixed[:, place, None] - ballot.forecast
            regret = slope[:, place, None] * over * ballot.awake
            lesson = Lesson(regret=regret, awake=ballot.awake, gap=gap, error=error, scored=ballot.scored)
            rule.learn(_own(state, MEMBERS[place]), lesson)


def longer(beta: float, times: float) -> float:
    """The memory that remembers so many times as many rows as `beta`, at least two."""
    return 1.0 - min((1.0 - beta) / times, 0.5)


def judge(beta: float, rivals: Sequence[int] | Floats) -> Boa:
    """The rule over the committee's forecasts: BOA with half the memory."""
    return Boa(longer(beta, _JUDGE), np.log(np.maximum(np.asarray(rivals, dtype=float), 2.0)))


def median_weights(forecast: Floats, awake: Floats) -> Floats:
    """Weights that make the median of the awake: 1 on the middle one, or a half on each of two."""
    order = np.argsort(np.where(awake > 0, forecast, np.inf), axis=1, kind="stable")
    count = np.add.reduce(awake, axis=1).astype(np.intp)
    rows, out = np.arange(len(forecast)), np.zeros(forecast.shape)
    for middle in (np.maximum(count - 1, 0) // 2, np.minimum(count // 2, forecast.shape[1] - 1)):
        out[rows, order[rows, middle]] += 0.5 * (count > 0)
    return out


def _own(state: State, name: str) -> State:
    """The arrays of one member; they are the same arrays, so that it learns in place."""
    start = f"{name}."
    return {key.removeprefix(start): array for key, array in state.items() if key.startswith(start)}
