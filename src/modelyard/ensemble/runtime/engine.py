"""The streaming runtime: forecasts issued in time order, learnt when their truth arrives.

At every step, `observe` takes the value of now and teaches the rows (now, lead h) that were issued h
steps ago (delayed feedback, Joulani, György & Szepesvári 2013); then `issue` takes the experts'
forecasts for the leads 1..H and returns the policy's. Two levels, all leads side by side:

- groups: a mixture of the online experts, and one of the offline experts after calibration;
- meta: a mixture of every expert as it is, every calibrated offline expert, the two group mixtures
  and the hard ELPA route (best offline expert around a mutant, best online expert otherwise). With the
  method `committee` the experts, as they are and calibrated, are mixed in several ways (`committee`),
  and the meta level mixes these and the route.

While a mutant is known, the online group and with it the online mixture sleep, and the route turns
to the offline experts; single experts stay members of the meta level, whose own losses decide, so
that a false alarm cannot cost more than the meta level's regret. The loss is the absolute one, whose
slope is the sign of the error: it is what the policy is measured by, and one outlier moves it
little. The engine does not know times of day, files or policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.ensemble.combining.arrays import decode_into, encode
from modelyard.ensemble.combining.committee import MEMBERS, Ballot, Committee, judge
from modelyard.ensemble.combining.intervals import Intervals
from modelyard.ensemble.combining.lessons import Bools, Floats, Lesson, Rule, mixture
from modelyard.ensemble.combining.rules import COMMITTEE, Boa, make_rule
from modelyard.ensemble.runtime.amplitude import Amplitude
from modelyard.ensemble.runtime.drift import Drift
from modelyard.ensemble.runtime.mutants import Limits, Season, offline_jumps

_LONG_AGO = -1e9
_NEVER = np.finfo(float).max  # the score of a member without a scored row


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What never changes while an engine runs."""

    method: str
    beta: float  # memory of scores and of regret, (0, 1]
    dirty_interval: int  # D, in steps
    amplitude_window: int  # W, in clean rows
    horizon: int  # H: leads 1..H
    online: tuple[str, ...]
    offline: tuple[str, ...]
    limits: Limits
    coverage: float = 0.9  # of the intervals

    @property
    def experts(self) -> tuple[str, ...]:
        """The base experts, the online ones first: the order of every expert axis."""
        return self.online + self.offline

    @property
    def members(self) -> tuple[str, ...]:
        """What the meta level mixes, in the order of every member axis."""
        experts = (f"expert:{name}" for name in self.experts)
        calibrated = (f"calibrated:{name}" for name in self.offline)
        committee = (f"mix:{name}" for name in MEMBERS) if self.method == COMMITTEE else ()
        return (*experts, *calibrated, "mix:online", "mix:offline", "route", *committee)

    @property
    def voters(self) -> int:
        """How many of the last members the meta level mixes: the route and a committee, or all of them."""
        return 1 + len(MEMBERS) if self.method == COMMITTEE else len(self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One origin's forecasts and how they came about."""

    forecast_h: Floats  # the policy's, NaN where nobody serves
    member_hm: Floats  # what each member forecasts, NaN where asleep
    meta_hm: Floats  # weights of the members: a simplex wherever somebody is awake
    online_hk: Floats  # weights within the online group
    offline_hk: Floats  # weights within the offline group
    route_hm: Floats  # what the route takes from each expert and calibrated expert
    committee_hjm: Floats  # what each mixture of a committee takes from them, `(H, 0 or J, ...)`
    dirty_h: Bools  # a mutant is known: the online group sleeps
    radius_h: Floats  # half the width of a conformal interval; infinite while too little is known

    def expert_weights(self) -> Floats:
        """The share of every base expert in the policy's forecast, `(H, experts)`."""
        online, offline = self.online_hk.shape[1], self.offline_hk.shape[1]
        base = online + 2 * offline
        share = self.meta_hm[:, :base].copy()
        share += self.meta_hm[:, base + 2, None] * self.route_hm
        share += np.einsum("hj,hjm->hm", self.meta_hm[:, base + 3 :], self.committee_hjm)
        share[:, :online] += self.meta_hm[:, base, None] * self.online_hk
        share[:, online : online + offline] += share[:, online + offline :]
        share[:, online : online + offline] += self.meta_hm[:, base + 1, None] * self.offline_hk
        return share[:, : online + offline]


class Engine:
    """One series' state: plain arrays, to and from JSON without loss.

    Columns are slots: first the online group, then the calibrated offline group, then the members
    of the meta level. Not safe for several threads. Calls alternate: `observe`, `issue`, ...
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._online, self._offline = len(setup.online), len(setup.offline)
        self._meta = self._online + self._offline  # the first slot of the meta level
        leads, members = setup.horizon, len(setup.members)
        slots, base = self._meta + members, self._meta + self._offline
        sizes = [self._online, self._offline, members]
        self._votes = (np.arange(members) >= members - setup.voters).astype(float)
        self._committee = Committee(setup.beta, base) if setup.method == COMMITTEE else None
        self.rule = _rule_of(setup, np.repeat(sizes, sizes))
        self._seated = self._committee.start(leads, base) if self._committee else {}
        self.amplitude = Amplitude(
            leads=leads, experts=self._offline, window=setup.amplitude_window, level=setup.limits.level
        )
        self._learnt = self.rule.start((leads, slots))
        self._clock = np.array([0.0, _LONG_AGO])  # now, last shock
        self._season = Season(setup.limits.period)
        self._drift = Drift(setup.limits.drift, setup.limits.scale)
        self._totals = np.zeros((2, leads, members))  # discounted |e| of scored rows, and their number
        self._counts = np.zeros((2, leads, members))  # rows scored, rows censored
        self._ahead = np.full(self._offline, np.nan)  # the newest lead-1 offline forecasts
        self._sent = np.zeros((3, leads, leads, slots))  # forecast, mixture, awake; by origin modulo H
        self._intervals = Intervals(leads, setup.coverage)
        self._radii = np.full((leads, leads), np.nan)  # as issued; by origin modulo H, NaN: no forecast
        self._lead = np.arange(leads)
        self._derive()

    def observe(self, truth: float) -> None:
        """Move to the next step, whose value is `truth` (NaN: not observed), and learn from it."""
        self._clock[0] += 1
        if np.isfinite(truth):
            surprise = self._season.surprise(int(self._clock[0]), truth)
            if self._drift.seen(surprise) or self.setup.limits.observed(surprise):
                self._clock[1] = self._clock[0]
            self._learn(truth)
        else:
            self._season.surprise(int(self._clock[0]), np.nan)

    def issue(self, forecast_hk: Floats) -> Issued:
        """The policy's forecasts for the leads 1..H.

        Args:
            forecast_hk: Each expert's newest forecast for now + h known by now, `(H, experts)`, NaN
                where it serves none.
        """
        meta, base = self._meta, self._meta + self._offline
        sent = self._sent[:, int(self._clock[0]) % self.setup.horizon]
        forecast, mixed, awake = sent
        member, served = forecast[:, meta:], awake[:, meta:]
        member[:, :meta] = forecast_hk
        member[:, meta:base] = self.amplitude.apply(forecast_hk[:, self._online :])
        served[:, :base] = np.isfinite(member[:, :base])
        np.copyto(member[:, :base], 0.0, where=served[:, :base] == 0)
        dirty = self._dirty(forecast_hk[:, self._online :])
        online, offline = self._mix_groups(sent, dirty)
        route = self._route(served[:, :base], dirty)
        member[:, base + 2] = np.add.reduce(route * member[:, :base], axis=1)
        served[:, base + 2] = np.logical_or.reduce(route, axis=1)
        committee = self._seat(sent)
        weights = self._mix(sent, meta, sent.shape[-1])
        forecast_h = np.where(served[:, base + 2] > 0, mixed[:, meta], np.nan)
        radius = self._intervals.radius()
        self._radii[int(self._clock[0]) % self.setup.horizon] = np.where(np.isnan(forecast_h), np.nan, radius)
        return Issued(
            forecast_h=forecast_h,
            radius_h=radius,
            member_hm=np.where(served > 0, member, np.nan),
            meta_hm=weights,
            online_hk=online,
            offline_hk=offline,
            route_hm=route,
            committee_hjm=committee,
            dirty_h=dirty,
        )

    def standing_weights(self) -> tuple[Floats, Floats, Floats]:
        """Weights as they stand, were everybody awake who ever was: `(H, online | offline | members)`."""
        online, meta = self._online, self._meta
        seen = (self._counts.sum(axis=0) > 0).astype(float)
        awake = np.concatenate([seen[:, :online], seen[:, meta : meta + self._offline], seen], axis=1)
        awake[:, meta:] *= self._votes
        bounds = ((0, online), (online, meta), (meta, awake.shape[1]))
        nothing = np.zeros_like(awake)
        online_hk, offline_hk, meta_hm = (
            mixture(self._log_weights[:, a:b], awake[:, a:b], nothing[:, a:b])[0] for a, b in bounds
        )
        return online_hk, offline_hk, meta_hm

    def scores(self) -> Floats:
        """Bias-corrected discounted mean absolute errors, `(H, members)`; NaN before any row."""
        return np.where(self._totals[1] > 0, self._score, np.nan)

    def counts(self) -> tuple[Floats, Floats]:
        """Rows scored and rows censored so far, each `(H, members)`."""
        return self._counts[0].copy(), self._counts[1].copy()

    def to_state(self) -> dict[str, Any]:
        """Everything learnt and everything still waiting for its truth, as JSON values."""
        return {name: encode(array) for name, array in self._arrays().items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `to_state` of an engine with the same setup, bit for bit.

        Raises:
            PolicyError: Arrays are missing, unreadable or of another shape.
        """
        for name, array in self._arrays().items():
            decode_into(array, state.get(name), name=name)
        self.amplitude.restore()
        self._drift.restore()
        self._derive()

    def _arrays(self) -> dict[str, Floats]:
        return {
            "clock": self._clock,
            "totals": self._totals,
            "counts": self._counts,
            "ahead": self._ahead,
            "season": self._season.recent,
            "sent": self._sent,
            "radii": self._radii,
            "intervals.errors": self._intervals.errors,
            "intervals.count": self._intervals.count,
            "intervals.rate": self._intervals.rate,
            "drift.since": self._drift.since,
            "amplitude.recent": self.amplitude.recent,
            "amplitude.rows": self.amplitude.rows,
            **{f"rule.{name}": array for name, array in self._learnt.items()},
            **{f"committee.{name}": array for name, array in self._seated.items()},
        }

    def _derive(self) -> None:
        """What follows from the arrays and is used at every issue."""
        self._log_weights = self.rule.log_weights(self._learnt)
        error, rows = self._totals
        self._score = np.full(error.shape, _NEVER)
        np.divide(error, rows, out=self._score, where=rows > 0)

    def _dirty(self, offline_hk: Floats) -> Bools:
        """Leads for which a mutant is known: observed within D steps, or foreseen up to the target."""
        now, last = self._clock
        shocked = bool(now - last < self.setup.dirty_interval)
        if not self._offline:
            return np.full(self.setup.horizon, shocked)
        limits = self.setup.limits
        foreseen = limits.foreseen(offline_jumps(offline_hk, self._ahead, limits.level))
        self._ahead[:] = offline_hk[0]
        return np.asarray(np.logical_or.accumulate(foreseen) | shocked)

    def _mix_groups(self, sent: Floats, dirty: Bools) -> tuple[Floats, Floats]:
        """Fill the slots of both groups and, as members, their mixtures."""
        online, meta, base = self._online, self._meta, self._meta + self._offline
        forecast, mixed, awake = sent
        forecast[:, :online] = forecast[:, meta : meta + online]
        forecast[:, online:meta] = forecast[:, 2 * meta : meta + base]
        awake[:, :online] = awake[:, meta : meta + online] * ~dirty[:, None]
        awake[:, online:meta] = awake[:, 2 * meta : meta + base]
        weights = []
        for place, (low, high) in enumerate(((0, online), (online, meta))):
            weights.append(self._mix(sent, low, high))
            at = meta + base + place
            forecast[:, at] = mixed[:, low] if high > low else 0.0
            awake[:, at] = np.logical_or.reduce(awake[:, low:high], axis=1)
        return weights[0], weights[1]

    def _mix(self, sent: Floats, low: int, high: int) -> Floats:
        """Mix the slots low..high and note the mixture beside each of them."""
        forecast, mixed, awake = sent[:, :, low:high]
        votes = awake * self._votes if low == self._meta and high > low else awake
        weights, mean = mixture(self._log_weights[:, low:high], votes, forecast)
        mixed[...] = mean[:, None]
        return weights

    def _seat(self, sent: Floats) -> Floats:
        """Fill the members that are the committee's mixtures; their weights of the base."""
        meta, base = self._meta, self._meta + self._offline
        forecast, _, awake = sent
        if self._committee is None:
            return np.zeros((len(forecast), 0, base))
        pool, served = forecast[:, meta : meta + base], awake[:, meta : meta + base]
        weights = self._committee.weights(self._seated, pool, served)
        forecast[:, meta + base + 3 :] = np.einsum("hjm,hm->hj", weights, pool)
        awake[:, meta + base + 3 :] = np.logical_or.reduce(served, axis=1)[:, None]
        return weights

    def _route(self, served_hm: Floats, dirty: Bools) -> Floats:
        """The best score within the group that the hard rule turns to; equals share."""
        online, meta = self._online, self._meta
        score = np.where(served_hm > 0, self._score[:, : served_hm.shape[1]], np.inf)
        no_online = np.logical_and.reduce(served_hm[:, :online] == 0, axis=1)
        turn = (dirty | no_online) & np.logical_or.reduce(served_hm[:, meta:], axis=1)
        score[turn, :meta] = np.inf
        score[~turn, online:] = np.inf
        best = np.minimum.reduce(score, axis=1, keepdims=True)
        chosen = (score == best) * served_hm
        return np.asarray(chosen / np.maximum(np.add.reduce(chosen, axis=1, keepdims=True), 1.0))

    def _learn(self, truth: float) -> None:
        now, last = self._clock
        sent = self._sent[:, (int(now) - 1 - self._lead) % self.setup.horizon, self._lead]
        forecast, mixed, awake = sent
        clean = (now - last > self.setup.dirty_interval + self._lead).astype(float)
        gap = forecast - truth
        error = np.abs(gap)
        scored = awake * clean[:, None]
        meta, base = self._meta, self._meta + self._offline
        votes = awake.copy()
        votes[:, meta:] *= self._votes
        regret = np.sign(mixed - truth) * (mixed - forecast) * votes
        lesson = Lesson(regret=regret, awake=votes, gap=gap, error=error, scored=scored)
        self.rule.learn(self._learnt, lesson)
        if self._committee is not None:
            pool = slice(meta, meta + base)
            ballot = Ballot(
                forecast=forecast[:, pool],
                awake=awake[:, pool],
                mixed=forecast[:, meta + base + 3 :],
                scored=awake[:, pool],
                truth=np.full(len(forecast), truth),
            )
            self._committee.learn(self._seated, ballot, np.sign(gap[:, meta + base + 3 :]))
        counted = scored[:, meta:]
        self._totals *= 1.0 - (1.0 - self.setup.beta) * counted
        self._totals[0] += error[:, meta:] * counted
        self._totals[1] += counted
        self._counts[0] += counted
        self._counts[1] += awake[:, meta:] - counted
        radius = self._radii[(int(now) - 1 - self._lead) % self.setup.horizon, self._lead]
        self._intervals.learn(np.abs(mixed[:, meta] - truth), radius, ~np.isnan(radius))
        if self._offline:
            own = slice(meta + self._online, 2 * meta)
            self.amplitude.learn(forecast[:, own], truth, scored[:, own])
        self._derive()


def _rule_of(setup: Setup, rivals: NDArray[np.intp]) -> Rule:
    """The rule of all slots; of a committee, BOA in the groups and its judge over the voters."""
    if setup.method != COMMITTEE:
        return make_rule(setup.method, beta=setup.beta, rivals=rivals)
    chair = judge(setup.beta, [setup.voters])
    members = len(setup.members)
    beta = np.full(len(rivals), setup.beta)
    beta[-members:] = chair.beta
    logs = np.log(np.maximum(rivals, 2))
    logs[-members:] = chair.log_rivals[0]
    return Boa(beta, logs)
