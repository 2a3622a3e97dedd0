"""The ELPA policy: a JSON file that says who is combined how, and carries what was learnt.

A superset of the public skill's policy (schema `elpa.policy/2`). A policy learnt from forecasts holds
each series' engine state at the end of validation, so that running it again gives the same bits. One
integrated from errors alone holds weights only. This module reads and writes; it learns nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import PolicyError
from modelyard.core.faults import Faults, Section
from modelyard.core.files import read_json, write_json
from modelyard.ensemble.combining.rules import METHODS
from modelyard.ensemble.policies.settings import LONGEST_WINDOW, read_moment
from modelyard.ensemble.runtime.drift import DETECTORS
from modelyard.ensemble.runtime.engine import Engine, Setup
from modelyard.ensemble.runtime.mutants import Limits, usual_jump

SCHEMA = "elpa.policy/2"
_LIMIT_NUMBERS = ("level", "jump", "scale", "shock", "alpha")


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A model that may not take part."""

    name: str
    reason: str
    rows: int  # that are to blame


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How weights are learnt, and why so."""

    name: str  # one of `rules.METHODS`
    requested: str  # what the settings said
    reason: str
    loss: str = "absolute"
    delay: str = "row (t, h) is learnt when y_t is observed"
    sleeping: str = "online group while a mutant is known; every expert where it serves no forecast"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesState:
    """What one series has taught."""

    limits: Limits
    scale: float | None  # MASE denominator of the validation period
    static_weights: Mapping[str, float]  # inverse score, frozen at the end of validation
    state: Mapping[str, Any]  # `Engine.to_state`
    until: str  # time of the newest step that the state has observed


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything in the policy file; field by field its keys."""

    created_at: str
    beta: float
    dirty_interval: int
    amplitude_window: int
    mutant_epsilon: float | None
    mutant_epsilon_source: Mapping[str, Any]  # kind, alpha, n
    online_models: tuple[str, ...]
    offline_models: tuple[str, ...]
    scores: Mapping[str, float]
    online_weights: Mapping[str, float]
    offline_weights: Mapping[str, float]
    best_online_model: str | None
    best_offline_model: str | None
    method: Method
    horizon: int | None = None
    period: int | None = None
    step_s: float | None = None
    seed: int = 42
    coverage: float = 0.9
    max_staleness_s: float | None = None
    validation_until: str | None = None
    excluded: tuple[Excluded, ...] = ()
    score_detail: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    meta_weights: Mapping[str, float] = field(default_factory=dict)
    best_online_tie_set: tuple[str, ...] = ()
    best_offline_tie_set: tuple[str, ...] = ()
    capabilities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    digests: Mapping[str, Any] = field(default_factory=dict)  # inputs{}, models{}, state
    regret_certificate: Mapping[str, Any] = field(default_factory=dict)  # `certificate.certify_regret`
    backtest: Mapping[str, Any] | None = None
    series: Mapping[str, SeriesState] = field(default_factory=dict)

    @property
    def experts(self) -> tuple[str, ...]:
        """The online models, then the offline ones."""
        return self.online_models + self.offline_models

    def engine(self, series: str) -> Engine:
        """A running engine of one series, as it stood at the end of validation.

        Raises:
            PolicyError: The policy was not learnt from forecasts of this series.
        """
        if series not in self.series or self.horizon is None:
            known = ", ".join(self.series) or "none: it was integrated from errors alone"
            raise PolicyError(f"the policy cannot forecast series {series!r}; it has learnt {known}")
        own = self.series[series]
        setup = Setup(
            method=self.method.name,
            beta=self.beta,
            dirty_interval=self.dirty_interval,
            amplitude_window=self.amplitude_window,
            horizon=self.horizon,
            online=self.online_models,
            offline=self.offline_models,
            limits=own.limits,
            coverage=self.coverage,
        )
        engine = Engine(setup)
        engine.load_state(own.state)
        return engine


def state_digest(policy: Policy) -> str:
    """What was learnt, together with the fields that its arrays mean nothing without."""
    bound = ("online_models", "offline_models", "horizon", "period", "step_s", "validation_until")
    fields = {name: to_json(policy)[name] for name in bound}
    return digest_json({**fields, "series": {name: dict(own.state) for name, own in policy.series.items()}})


def finite(value: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    return float(value) if math.isfinite(value) else None


def to_json(policy: Policy) -> dict[str, Any]:
    """The policy as the JSON value of its file."""
    return {
        "skill": "ELPA",
        "schema": SCHEMA,
        "created_at": policy.created_at,
        "beta": policy.beta,
        "dirty_interval": policy.dirty_interval,
        "amplitude_window": policy.amplitude_window,
        "mutant_epsilon": policy.mutant_epsilon,
        "mutant_epsilon_source": dict(policy.mutant_epsilon_source),
        "online_models": list(policy.online_models),
        "offline_models": list(policy.offline_models),
        "scores": dict(policy.scores),
        "online_weights": dict(policy.online_weights),
        "offline_weights": dict(policy.offline_weights),
        "best_online_model": policy.best_online_model,
        "best_offline_model": policy.best_offline_model,
        "best_online_tie_set": list(policy.best_online_tie_set),
        "best_offline_tie_set": list(policy.best_offline_tie_set),
        "leads": list(range(1, (policy.horizon or 0) + 1)),
        "horizon": policy.horizon,
        "period": policy.period,
        "step_s": policy.step_s,
        "seed": policy.seed,
        "coverage": policy.coverage,
        "max_staleness_s": policy.max_staleness_s,
        "validation_until": policy.validation_until,
        "excluded": [{"name": e.name, "reason": e.reason, "rows": e.rows} for e in policy.excluded],
        "score_detail": {name: dict(detail) for name, detail in policy.score_detail.items()},
        "meta_weights": dict(policy.meta_weights),
        "method": {name: getattr(policy.method, name) for name in Method.__slots__},
        "capabilities": {name: dict(seen) for name, seen in policy.capabilities.items()},
        "warnings": list(policy.warnings),
        "digests": dict(policy.digests),
        "regret_certificate": dict(policy.regret_certificate),
        "backtest": None if policy.backtest is None else dict(policy.backtest),
        "series": {name: _series_json(own) for name, own in policy.series.items()},
    }


def write_policy(path: Path, policy: Policy) -> None:
    """Write the file whole."""
    write_json(path, to_json(policy))


def read_policy(path: Path) -> Policy:
    """Read a policy file of this schema, strictly.

    Raises:
        PolicyError: There is no such file, or it is not JSON.
        DocumentError: All that is wrong in it.
    """
    try:
        data = read_json(path)
    except (OSError, json.JSONDecodeError) as error:
        raise PolicyError(f"cannot read the policy {path}: {error}; integrate again") from error
    return from_json(data, file=str(path))


def from_json(data: object, *, file: str) -> Policy:
    """The policy in a JSON value.

    A `mutant_epsilon` changed by hand becomes the limit of every series; what the learnt state hangs on
    cannot be changed.

    Raises:
        DocumentError: With every fault of it.
        PolicyError: The state was learnt with other fields.
    """
    faults = Faults(file=file)
    section = Section(data, faults=faults)
    section.choice("schema", "", [SCHEMA])
    section.choice("skill", "ELPA", ["ELPA"])
    section.raw("leads")
    policy = Policy(**_plain_fields(section), **_nested_fields(section))
    section.close()
    faults.raise_if_any()
    _check_state(policy)
    return _with_epsilon(policy)


def _plain_fields(section: Section) -> dict[str, Any]:
    above_one = math.nextafter(1.0, 2.0)
    optional: dict[str, Callable[[str], float]] = {
        "mutant_epsilon": lambda n: section.number(n, None, above=0.0),
        "horizon": lambda n: section.integer(n, None, low=1),
        "period": lambda n: section.integer(n, None, low=1),
        "step_s": lambda n: section.number(n, None, above=0.0),
        "max_staleness_s": lambda n: section.number(n, None, above=0.0),
    }
    names = ("online_models", "offline_models", "best_online_tie_set", "best_offline_tie_set", "warnings")
    return {
        "created_at": section.text("created_at"),
        "beta": section.number("beta", None, above=0.0, below=above_one),
        "dirty_interval": section.integer("dirty_interval", None, low=0, high=LONGEST_WINDOW),
        "amplitude_window": section.integer("amplitude_window", None, low=1, high=LONGEST_WINDOW),
        "seed": section.integer("seed", 42, low=0),
        "coverage": section.number("coverage", 0.9, above=0.0, below=1.0),
        "validation_until": _read_until(section),
        "best_online_model": section.optional_text("best_online_model"),
        "best_offline_model": section.optional_text("best_offline_model"),
        **{name: section.texts(name) for name in names},
        **{name: read(name) if section.raw(name) is not None else None for name, read in optional.items()},
    }


def _read_until(section: Section) -> str | None:
    """The text as it stands, held to be a time."""
    if section.raw("validation_until") is None:
        return None
    read_moment(section, "validation_until")
    return section.text("validation_until") if isinstance(section.raw("validation_until"), str) else None


def _check_state(policy: Policy) -> None:
    if policy.series and policy.digests.get("state") != state_digest(policy):
        raise PolicyError(
            "online_models, offline_models, horizon, period, step_s, validation_until or series of the "
            "policy were changed after it was learnt (digests.state differs); integrate again"
        )


def _with_epsilon(policy: Policy) -> Policy:
    """The limits follow a `mutant_epsilon` that was changed in the file."""
    epsilon, learnt = policy.mutant_epsilon, usual_jump([own.limits for own in policy.series.values()])
    if epsilon == learnt or not policy.series:
        return policy
    if epsilon is None:
        raise PolicyError(
            f"mutant_epsilon = null, but {learnt:g} was learnt; write a number, or integrate again"
        )
    series = {
        name: replace(own, limits=replace(own.limits, jump=epsilon, jump_kind="given"))
        for name, own in policy.series.items()
    }
    return replace(policy, series=series, mutant_epsilon_source={"kind": "given", "alpha": None, "n": None})


def _nested_fields(section: Section) -> dict[str, Any]:
    weights = ("scores", "online_weights", "offline_weights", "meta_weights")
    free = ("regret_certificate", "mutant_epsilon_source", "score_detail", "capabilities", "digests")
    return {
        **{name: _numbers(section.section(name)) for name in weights},
        **{name: section.section(name).rest() for name in free},
        "backtest": section.section("backtest").rest()
        if section.has("backtest")
        else section.raw("backtest"),
        "excluded": tuple(_read_excluded(part) for part in section.sections("excluded")),
        "method": _read_method(section.section("method")),
        "series": _read_series(section.section("series")),
    }


def _numbers(section: Section) -> dict[str, float]:
    return {name: section.number(name, None, above=-math.inf) for name in section.data}


def _read_excluded(section: Section) -> Excluded:
    found = Excluded(
        name=section.text("name"), reason=section.text("reason"), rows=section.integer("rows", 0, low=0)
    )
    section.close()
    return found


def _read_method(section: Section) -> Method:
    found = Method(
        name=section.choice("name", "", METHODS),
        **{name: section.text(name) for name in ("requested", "reason", "loss", "delay", "sleeping")},
    )
    section.close()
    return found


def _read_series(section: Section) -> dict[str, SeriesState]:
    found = {}
    for name in section.data:
        own = section.section(name)
        found[name] = SeriesState(
            limits=_read_limits(own.section("limits")),
            scale=own.number("scale", None, above=0.0) if own.raw("scale") is not None else None,
            static_weights=_numbers(own.section("static_weights")),
            state=own.section("state").rest(),
            until=own.text("until"),
        )
        own.close()
    return found


def _read_limits(section: Section) -> Limits:
    numbers = {
        name: math.inf if section.raw(name) is None else section.number(name, None, above=0.0)
        for name in _LIMIT_NUMBERS
    }
    found = Limits(
        **numbers,
        period=section.integer("period", None, low=1),
        jump_kind=section.text("jump_kind"),
        jump_rows=section.integer("jump_rows", None, low=0),
        shock_rows=section.integer("shock_rows", None, low=0),
        drift=section.choice("drift", "none", DETECTORS),
    )
    section.close()
    return found


def _series_json(own: SeriesState) -> dict[str, Any]:
    limits: dict[str, Any] = {name: getattr(own.limits, name) for name in Limits.__slots__}
    limits.update({name: finite(limits[name]) for name in _LIMIT_NUMBERS})
    return {
        "limits": limits,
        "scale": own.scale,
        "static_weights": dict(own.static_weights),
        "state": dict(own.state),
        "until": own.until,
    }
