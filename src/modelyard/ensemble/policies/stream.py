"""A policy at work on a stream: one origin in, its forecasts out, and a state to go on from.

An origin is `{"series", "origin", "y", "forecasts": {model: [lead 1, lead 2, ...]}}`: the value observed
at that time and what the experts say of the steps after it; null or a missing model sleeps. Steps that
are skipped count as not observed. An origin that was taken before gives nothing, but the newest one of a
series gives the same answer again: whoever was killed between the state and the answer can ask anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modelyard.core.digests import digest_json
from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Floats
from modelyard.ensemble.policies.policy import Policy, finite, state_digest
from modelyard.ensemble.policies.settings import as_utc
from modelyard.ensemble.runtime.engine import Engine, Issued

SCHEMA = "modelyard.forecast-state/1"
_LONGEST_GAP = 100_000  # steps that may be skipped


@dataclass(slots=True, kw_only=True)
class _Running:
    """One series on its way."""

    engine: Engine
    now: pd.Timestamp  # the newest step observed
    due: bool  # that step has been observed and not been forecast from
    answer: dict[str, Any] | None  # the newest


class Stream:
    """All series of one policy. Not safe for several threads.

    Args:
        policy: Learnt from tables.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._digest = digest_json({"state": state_digest(policy), "beta": policy.beta})
        self._running = {
            name: _Running(engine=policy.engine(name), now=_moment(own.until), due=True, answer=None)
            for name, own in policy.series.items()
        }

    def take(self, line: Mapping[str, Any], *, again: bool) -> dict[str, Any] | None:
        """The answer to one origin; None where it was taken before.

        Args:
            line: As the module says.
            again: Give the newest answer of a series once more when its origin comes once more.

        Raises:
            PolicyError: The line lacks something, is off the grid, or is of a series the policy has not
                learnt.
        """
        series, origin = str(line.get("series", "main")), _moment(line.get("origin"))
        if series not in self._running:
            self._policy.engine(series)  # tells what is known
        one = self._running[series]
        steps = self._steps(one, origin, series)
        if steps < 0 or (steps == 0 and not one.due):
            return one.answer if again and steps == 0 else None
        forecast_hk = self._experts(line)
        y = _number(line.get("y"), "y")
        for missed in range(steps):
            if one.due:
                one.engine.issue(np.full_like(forecast_hk, np.nan))
            one.engine.observe(y if missed == steps - 1 else math.nan)
            one.due = True
        issued = one.engine.issue(forecast_hk)
        one.due, one.now = False, origin
        one.answer = _answer(series, origin, issued)
        return one.answer

    def to_state(self) -> dict[str, Any]:
        """Where every series stands, as JSON values."""
        series = {
            name: {
                "now": one.now.isoformat(),
                "due": one.due,
                "answer": one.answer,
                "engine": one.engine.to_state(),
            }
            for name, one in self._running.items()
        }
        return {"schema": SCHEMA, "policy": self._digest, "series": series}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `to_state` of a stream of the same policy, bit for bit.

        Raises:
            PolicyError: It is of another schema or policy, or not whole.
        """
        if state.get("schema") != SCHEMA or state.get("policy") != self._digest:
            raise PolicyError(
                f"the state is of schema {state.get('schema')!r} and policy {state.get('policy')!r}, but "
                f"{SCHEMA!r} and {self._digest!r} are required; begin with a new state file"
            )
        for name, one in self._running.items():
            own = state["series"][name]
            one.engine.load_state(own["engine"])
            one.now, one.due, one.answer = _moment(own["now"]), bool(own["due"]), own["answer"]

    def _steps(self, one: _Running, origin: pd.Timestamp, series: str) -> int:
        """How many steps the origin lies after the newest; negative before it."""
        step_s = self._policy.step_s or 1.0
        steps = (origin - one.now).total_seconds() / step_s
        if steps != round(steps):
            raise PolicyError(
                f"origin {origin.isoformat()} of series {series!r} is not a whole number of steps of "
                f"{step_s:g} s after {one.now.isoformat()}; correct it"
            )
        if steps > _LONGEST_GAP:
            raise PolicyError(
                f"origin {origin.isoformat()} of series {series!r} lies {steps:.0f} steps after "
                f"{one.now.isoformat()}, more than {_LONGEST_GAP}; integrate again"
            )
        return round(steps)

    def _experts(self, line: Mapping[str, Any]) -> Floats:
        given, horizon = line.get("forecasts"), self._policy.horizon or 1
        if not isinstance(given, Mapping):
            raise PolicyError(f"forecasts = {given!r} is not an object; give lists of forecasts by model")
        out = np.full((horizon, len(self._policy.experts)), np.nan)
        for k, name in enumerate(self._policy.experts):
            values = given.get(name) or []
            if not isinstance(values, list):
                raise PolicyError(f"forecasts of {name} are {values!r}; give a list, lead 1 first")
            for h, value in enumerate(values[:horizon]):
                out[h, k] = _number(value, f"the forecast of {name} at lead {h + 1}")
        return out


def _answer(series: str, origin: pd.Timestamp, issued: Issued) -> dict[str, Any]:
    lower, upper = issued.forecast_h - issued.radius_h, issued.forecast_h + issued.radius_h
    return {
        "series": series,
        "origin": origin.isoformat(),
        "forecast": [finite(value) for value in issued.forecast_h],
        "lower": [finite(value) for value in lower],
        "upper": [finite(value) for value in upper],
        "mutant": [bool(flag) for flag in issued.dirty_h],
    }


def _number(value: object, what: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(f"{what} = {value!r} is not a number; give a number, or null where there is none")
    return float(value) if math.isfinite(value) else math.nan


def _moment(text: object) -> pd.Timestamp:
    try:
        moment = pd.Timestamp(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    if not isinstance(moment, pd.Timestamp):  # "NaT" is read, and is none
        raise PolicyError(f"origin = {text!r} is not a time; write ISO 8601, as 2013-09-01T00:00")
    return as_utc(moment)
