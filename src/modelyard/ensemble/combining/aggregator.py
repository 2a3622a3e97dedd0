"""Aggregation as a library: forecasts of experts in, one forecast out, for many series at once.

    pool = Aggregator(Pool(experts=12, series=1000, delay=6))
    mixed = pool.predict(forecasts)      # (1000, 12) -> (1000,); NaN: the expert sleeps
    pool.update(values)                  # (1000,): teaches what was predicted six steps ago

Any method of `rules.METHODS`, every series by itself. Its state is plain arrays, to and from
JSON bit for bit. The two-level ensemble of a policy, with groups, mutants and calibration, is `engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.arrays import decode_into, encode
from modelyard.ensemble.combining.committee import MEMBERS, Ballot, Committee, judge
from modelyard.ensemble.combining.intervals import Intervals
from modelyard.ensemble.combining.lessons import Floats, Lesson, Rule, mixture
from modelyard.ensemble.combining.losses import LOSSES, loss_of, slope_of
from modelyard.ensemble.combining.rules import COMMITTEE, make_rule

SCHEMA = "modelyard.aggregator/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What never changes while an aggregator runs."""

    experts: int
    series: int = 1
    method: str = "boa"  # one of `rules.METHODS`
    beta: float = 0.99  # memory, (0, 1]
    delay: int = 1  # predictions until the truth of one arrives: the lead
    loss: str = "absolute"  # one of `losses.LOSSES`
    levels: tuple[float, ...] = ()  # of pinball, one a series
    coverage: float = 0.9  # of `radius`


class Aggregator:
    """Mixes experts and learns. Not safe for several threads.

    Calls go in pairs, `predict` then `update`; the truth that `update` takes is that of the forecast
    that was issued `delay` predictions ago, the last one counting as the first.

    Args:
        pool: Its shape and rule.

    Raises:
        PolicyError: A field is out of range.
    """

    def __init__(self, pool: Pool) -> None:
        _check(pool)
        self.pool = pool
        shape = (pool.series, pool.experts)
        self._committee = Committee(pool.beta, pool.experts) if pool.method == COMMITTEE else None
        self._seated = self._committee.start(*shape) if self._committee else {}
        self._rule: Rule
        if self._committee:
            self._rule = judge(pool.beta, [len(MEMBERS)])
            voters = len(MEMBERS)
        else:
            self._rule = make_rule(pool.method, beta=pool.beta, rivals=np.full(pool.experts, pool.experts))
            voters = pool.experts
        self._learnt = self._rule.start((pool.series, voters))
        self._votes = np.zeros((pool.delay, pool.series, voters if self._committee else 0))
        self._intervals = Intervals(pool.series, pool.coverage)
        self._level = np.array(pool.levels or (0.5,))
        self._calls = np.zeros(2)  # predictions, updates
        self._sent = np.zeros((pool.delay, 2, *shape))  # forecast, awake; by prediction modulo the delay
        self._mixed = np.full((pool.delay, pool.series), np.nan)
        self._issued = np.full((pool.delay, pool.series), np.nan)  # radii, where asked for
        self.weights = np.zeros(shape)  # of the last prediction
        self._log_weights = self._rule.log_weights(self._learnt)

    def predict(self, experts: Floats) -> Floats:
        """The mixture, `(series,)`; NaN where every expert sleeps.

        Args:
            experts: Their forecasts, `(series, experts)`, or `(experts,)` for one series; NaN sleeps.

        Raises:
            PolicyError: Another shape, or `update` is due.
        """
        if self._calls[0] != self._calls[1]:
            raise PolicyError("predict was called twice; call update with the newest values in between")
        given = self._shaped(experts, self.weights.shape, "the experts' forecasts")
        at = int(self._calls[0]) % self.pool.delay
        forecast, awake = self._sent[at]
        awake[...] = np.isfinite(given)
        forecast[...] = given if awake.all() else np.where(awake > 0, given, 0.0)
        mixed = self._mix(at)
        self._calls[0] += 1.0
        self._issued[at] = np.nan
        self._mixed[at] = np.where(np.logical_or.reduce(awake, axis=1), mixed, np.nan)
        issued: Floats = self._mixed[at].copy()
        return issued

    def update(self, truth: Floats | float) -> None:
        """Learn from the newest values, `(series,)`; NaN teaches nothing.

        Raises:
            PolicyError: Another shape, or there is no prediction before it.
        """
        if self._calls[0] != self._calls[1] + 1:
            raise PolicyError("update was called without a prediction before it; call predict first")
        y = self._shaped(truth, (self.pool.series,), "the values")
        self._calls[1] += 1.0
        if self._calls[1] < self.pool.delay:
            return
        at = int(self._calls[1]) % self.pool.delay
        awake = self._sent[at, 1]
        gap = self._mixed[at] - y
        known = np.isfinite(gap)
        if not known.all():
            if not known.any():
                return
            awake = awake * known[:, None]
            gap, y = np.where(known, gap, 0.0), np.where(known, y, 0.0)
        self._teach(at, y, gap, awake)
        self._intervals.learn(np.abs(gap), self._issued[at], known)

    def radius(self) -> Floats:
        """Half the width of a conformal interval around the last prediction, `(series,)`.

        Infinite while there are too few errors for `coverage`. What is asked for is held against its
        truth, and later radii are corrected by it.
        """
        at = int(self._calls[0] - 1) % self.pool.delay
        self._issued[at] = self._intervals.radius()
        found: Floats = self._issued[at].copy()
        return found

    def to_state(self) -> dict[str, Any]:
        """The pool, everything learnt and everything that waits for its truth, as JSON values."""
        fields = {name: getattr(self.pool, name) for name in Pool.__slots__}
        fields["levels"] = list(self.pool.levels)
        arrays = {name: encode(array) for name, array in self._arrays().items()}
        return {"schema": SCHEMA, "pool": fields, "arrays": arrays}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Aggregator:
        """An aggregator that goes on from `to_state`, bit for bit.

        Raises:
            PolicyError: It is of another schema, or arrays are missing or of another shape.
        """
        if state.get("schema") != SCHEMA:
            raise PolicyError(f"the state is {state.get('schema')!r}, but {SCHEMA} is required")
        fields = dict(state["pool"])
        made = cls(Pool(**{**fields, "levels": tuple(fields["levels"])}))
        for name, array in made._arrays().items():
            decode_into(array, state["arrays"].get(name), name=name)
        made._log_weights = made._rule.log_weights(made._learnt)
        return made

    def _mix(self, at: int) -> Floats:
        """Mix the forecasts of one place in the ring; sets `weights`."""
        forecast, awake = self._sent[at]
        if self._committee is None:
            self.weights, mixed = mixture(self._log_weights, awake, forecast)
            return mixed
        share = self._committee.weights(self._seated, forecast, awake)
        votes = self._votes[at]
        np.einsum("sjk,sk->sj", share, forecast, out=votes)
        trust, mixed = mixture(self._log_weights, np.ones_like(votes), votes)
        self.weights = np.einsum("sj,sjk->sk", trust, share)
        return mixed

    def _teach(self, at: int, y: Floats, gap: Floats, awake: Floats) -> None:
        """One lesson for whoever mixes."""
        forecast = self._sent[at, 0]
        if self._committee is None:
            self._learn(forecast - y[:, None], gap, awake)
            return
        votes = self._votes[at]
        over = votes - y[:, None]
        ballot = Ballot(forecast=forecast, awake=awake, mixed=votes, scored=awake, truth=y)
        slope = slope_of(over, self.pool.loss, self._level[:, None])
        self._committee.learn(self._seated, ballot, slope)
        somebody = np.logical_or.reduce(awake, axis=1).astype(float)
        self._learn(over, gap, np.broadcast_to(somebody[:, None], over.shape))

    def _learn(self, gap_sk: Floats, gap_s: Floats, awake: Floats) -> None:
        loss, level = self.pool.loss, self._level
        regret = gap_s[:, None] - gap_sk
        regret *= slope_of(gap_s, loss, level)[:, None]
        regret *= awake
        lesson = Lesson(
            regret=regret,
            awake=awake,
            gap=gap_sk,
            error=loss_of(gap_sk, loss, level[:, None]),
            scored=awake,
        )
        self._rule.learn(self._learnt, lesson)
        self._log_weights = self._rule.log_weights(self._learnt)

    def _shaped(self, values: Floats | float, shape: tuple[int, ...], what: str) -> Floats:
        given = np.asarray(values, dtype=float)
        if given.shape == shape:
            return given
        if self.pool.series == 1 and given.shape == shape[1:]:
            return given.reshape(shape)
        raise PolicyError(f"{what} have the shape {given.shape}; {shape} is required")

    def _arrays(self) -> dict[str, Floats]:
        return {
            "calls": self._calls,
            "sent": self._sent,
            "mixed": self._mixed,
            "issued": self._issued,
            "weights": self.weights,
            "errors": self._intervals.errors,
            "count": self._intervals.count,
            "rate": self._intervals.rate,
            "votes": self._votes,
            **{f"rule.{name}": array for name, array in self._learnt.items()},
            **{f"committee.{name}": array for name, array in self._seated.items()},
        }


def _check(pool: Pool) -> None:
    for name in ("experts", "series", "delay"):
        if getattr(pool, name) < 1:
            raise PolicyError(f"{name} = {getattr(pool, name)} is out of range; use 1 or more")
    if pool.loss not in LOSSES:
        raise PolicyError(f"loss {pool.loss!r} is not known; use one of {', '.join(LOSSES)}")
    wrong = [level for level in pool.levels if not 0.0 < level < 1.0]
    if wrong:
        raise PolicyError(f"level {wrong[0]} is out of range; use numbers between 0 and 1")
    if pool.loss == "pinball" and len(pool.levels) != pool.series:
        raise PolicyError(
            f"there are {len(pool.levels)} levels for {pool.series} series; give every series its own"
        )
